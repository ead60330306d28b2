"""`anydim deploy ray` on a real cluster: the server's own answers, while replicas come, go and die."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cohere
import numpy as np
import openai
import pytest
import torch

from anydim import Embedder
from anydim.config import Settings, load_settings
from anydim.deploy.pool import LOCAL
from anydim.deploy.ray_run import running_service
from anydim.deploy.ray_serve import Replica, app
from anydim.deploy.scaling import Scale
from anydim.deploy.service import NAME
from anydim.engine.handle import Health
from anydim.errors import ComputeFailed, ConfigError, Unavailable
from tests.deploy.conftest import processes_named, wait_until
from tests.texts import SENTENCES

KEY = "a-key-of-the-tests"
REPLICA = f"ServeReplica:{NAME}:{NAME}"
SCALE = Scale(cpus=0.2, gpus=0, max_replicas=2, target_queued_tokens=100, upscale_delay=0)


class Service:
    """A service on the cluster, as its clients know it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.port}"

    def settings(self, **more: Any) -> Settings:
        named = {"model": str(self.folder), "device": "cpu", "threads": 1, "dtype": "float32", **more}
        return load_settings({**named, "port": self.port, "api_key": [f"tests:{KEY}"]}, {})

    def run(self) -> None:
        """As a Serve config has it run: the importable application, with args, and the key in a variable."""
        from ray import serve

        serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": self.port})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANYDIM_API_KEY", f"tests:{KEY}")
            made = app({"model": str(self.folder), "device": "cpu", "threads": 1, "dtype": "float32"})
        serve.run(made, name=NAME, route_prefix="/")

    def deploy(self, address: str, **more: Any) -> None:
        with running_service(self.settings(**more), SCALE, address) as port:
            assert port == self.port

    def send(self, path: str, body: dict[str, Any] | None = None, key: str = KEY) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def dim(self) -> int:
        """Components of a vector; the request must be answered."""
        status, body = self.send("/v1/embeddings", {"input": "hello"})
        assert status == 200, body
        return len(body["data"][0]["embedding"])


@pytest.fixture(scope="module")
def service(cluster: str, starter_folder: Path) -> Iterator[Service]:
    from ray import serve

    found = Service(starter_folder)
    found.run()
    yield found
    serve.shutdown()


@contextmanager
def traffic(service: Service, clients: int = 2) -> Iterator[Counter[Any]]:
    """Requests without a pause, and what became of them."""
    seen: Counter[Any] = Counter()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                seen[service.dim()] += 1
            except Exception as error:
                seen[repr(error)] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_its_answers_are_those_of_a_server(service: Service) -> None:
    before = torch.get_num_threads()
    with Embedder(str(service.folder), device="cpu", dtype="float32", threads=1, show_progress=False) as embedder:
        wanted = embedder.embed(SENTENCES, output_dim=64)
    torch.set_num_threads(before)
    ours = openai.OpenAI(base_url=f"{service.address}/v1", api_key=KEY, max_retries=0)
    answer = ours.embeddings.create(model=NAME, input=SENTENCES, extra_body={"output_dim": 64, "model": None})
    np.testing.assert_allclose([row.embedding for row in answer.data], wanted, atol=1e-5)
    theirs = cohere.ClientV2(KEY, base_url=service.address)
    embedded = theirs.embed(
        model=service.folder.name,
        texts=SENTENCES,
        input_type="clustering",
        embedding_types=["float"],
        output_dimension=64,
    )
    np.testing.assert_allclose(embedded.embeddings.float_, wanted, atol=1e-5)
    assert service.send("/ready")[0] == 200
    assert service.send("/info")[0] == 200
    status, body = service.send("/v1/embeddings", {"input": "hello"}, key="another")
    assert (status, body["error"]["message"]) == (401, "Incorrect API key provided")
    status, body = service.send("/v1/embeddings", {"input": "hello", "output_dim": 50})
    assert (status, body["error"]["param"]) == (400, "output_dim")


def test_the_engines_of_replicas_keep_the_code_of_as_many_products_as_those_of_a_server(service: Service) -> None:
    replicas = processes_named(REPLICA)
    engines = [child for each in replicas for child in each.children() if "anydim.engine.worker" in child.cmdline()]
    assert len(engines) == len(replicas)
    for engine in engines:
        told = engine.environ()
        assert (told["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], told["LRU_CACHE_CAPACITY"]) == ("512", "512")


def test_two_updates_under_traffic_lose_no_request(service: Service, cluster: str) -> None:
    with traffic(service) as seen:
        assert wait_until(lambda: seen[384] > 0)
        for dim in (64, 128):
            service.deploy(cluster, default_dim=dim)
            assert wait_until(lambda dim=dim: seen[dim] > 0), seen  # type: ignore[misc]
    assert set(seen) == {384, 64, 128}
    assert wait_until(lambda: service.dim() == 128)


def test_more_waiting_tokens_bring_another_replica(service: Service) -> None:
    from ray import serve

    def running() -> int:
        return int(serve.status().applications[NAME].deployments[NAME].replica_states.get("RUNNING", 0))

    bulk = {"input": [f"{n} " + "word " * 300 for n in range(64)], "priority": "low"}  # no two of them equal
    assert running() == 1
    thread = threading.Thread(target=service.send, args=("/v1/embeddings", bulk))
    thread.start()
    assert wait_until(lambda: running() == 2, 120)
    thread.join()


def test_a_killed_replica_is_replaced(service: Service) -> None:
    before = {process.pid for process in processes_named(REPLICA)}
    assert len(before) == 2
    processes_named(REPLICA)[0].kill()

    def is_answered() -> bool:
        try:
            return all(service.dim() == 128 for _ in range(10))
        except (AssertionError, OSError):  # what the dead one had in its hands
            return False

    assert wait_until(is_answered)
    assert wait_until(lambda: bool({process.pid for process in processes_named(REPLICA)} - before), 60)


def test_what_this_machine_has_not_is_said_in_place_of_waiting_for_it(service: Service) -> None:
    with (
        pytest.raises(ConfigError, match=r"the replicas need more than this machine has: 128 CPUs of 2; see --gpus"),
        running_service(service.settings(), Scale(cpus=64, gpus=0, min_replicas=2, max_replicas=2), LOCAL),
    ):
        pass


def test_why_a_replica_does_not_start_is_said_without_its_traceback(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> None:
        raise RuntimeError(
            "Deploying app failed: Traceback (most recent call last):\n  File x\nanydim.errors.ModelError: no"
        )

    monkeypatch.setattr("ray.serve.run", fails)
    monkeypatch.setattr("anydim.deploy.ray_run._why", str)  # the service of the other tests goes on
    with pytest.raises(ComputeFailed, match=r"^the service has not started: no; `serve status`"):
        service.deploy(LOCAL)


async def test_a_replica_is_healthy_while_its_engine_is_ready() -> None:
    class Crew:
        def __init__(self) -> None:
            self.handle = self
            self.now = Health(True, True)

        def health(self) -> Health:
            return self.now

        async def stop(self) -> None: ...

    replica = Replica.__new__(Replica)
    replica._crew = crew = Crew()  # type: ignore[assignment]
    await replica.check_health()
    for state in (Health(False, False, "the engine is dead"), Health(True, False, "the model is loading")):
        crew.now = state
        with pytest.raises(Unavailable, match=state.reason):
            await replica.check_health()
    await replica.__del__()
