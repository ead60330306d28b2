"""Draining: requests under way are answered, new ones refused, and nobody waits longer than the limit."""

import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from anydim.cli.gate import Gate


class SlowApp:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.entered.set()
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def client_of(gate: Gate) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=gate), base_url="http://test")


async def drain_during_a_request() -> None:
    app = SlowApp()
    gate = Gate(app)
    async with client_of(gate) as client:
        slow = asyncio.create_task(client.get("/slow"))
        await app.entered.wait()
        draining = asyncio.create_task(gate.drain(60))
        await asyncio.sleep(0)
        refused = await client.post("/v1/embeddings", json={"input": "x"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert (await client.get("/ready")).status_code == 200  # the probes answer for themselves
        assert not draining.done()
        app.go.set()
        assert (await slow).text == "done"
        await draining


def test_requests_under_way_are_answered_and_new_ones_refused() -> None:
    asyncio.run(asyncio.wait_for(drain_during_a_request(), 30))


async def drain_without_patience() -> None:
    app = SlowApp()
    gate = Gate(app)
    async with client_of(gate) as client:
        slow = asyncio.create_task(client.get("/slow"))
        await app.entered.wait()
        await gate.drain(0.01)
        assert not slow.done()
        app.go.set()
        await slow


def test_the_limit_ends_the_wait() -> None:
    asyncio.run(asyncio.wait_for(drain_without_patience(), 30))


def test_an_idle_gate_drains_at_once() -> None:
    asyncio.run(asyncio.wait_for(Gate(SlowApp()).drain(60), 30))
