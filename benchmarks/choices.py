"""What does each library on the hot route cost? The figures behind docs/decisions/.

Run: python -m benchmarks.choices [--parts json tokenizer server] [--out FILE]
Needs the test extra; FastAPI and pydantic are measured where they are installed (pip install fastapi).

json: decoding and validating a request of 64 texts, encoding 64 vectors of 2560. tokenizer: tokens a second on real
sentences with Qwen3's vocabulary. server: requests a second of one small request over loopback, one connection.
It knows libraries; it runs no model.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import importlib.util
import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import orjson
import pybase64
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks import report
from benchmarks.corpus import Corpus

_HAS_FASTAPI: Final = importlib.util.find_spec("fastapi") is not None


def microseconds(work: Callable[[], Any], runs: int = 30) -> float:
    """Median of single calls."""
    work()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        taken.append(1e6 * (time.perf_counter() - began))
    return statistics.median(taken)


class Body(msgspec.Struct):
    """The smallest useful request."""

    input: str | list[str]
    model: str | None = None
    dimensions: int | None = None
    encoding_format: str = "float"


def measure_json() -> list[dict[str, Any]]:
    """Decoders and encoders."""
    body = json.dumps({"input": Corpus("en").lines(64), "model": "m", "dimensions": 32}).encode()
    decoders: dict[str, Callable[[], Any]] = {
        "json": lambda: json.loads(body),
        "orjson": lambda: orjson.loads(body),
        "msgspec, typed": lambda: msgspec.json.decode(body, type=Body),
    }
    if _HAS_FASTAPI:
        from pydantic import create_model

        model = create_model(
            "Model", input=(str | list[str], ...), model=(str | None, None), dimensions=(int | None, None)
        )
        decoders["pydantic, typed"] = lambda: model.model_validate_json(body)
    vectors = np.random.default_rng().standard_normal((64, 2560)).astype(np.float32)
    rows: list[Any] = list(vectors)
    numpy = orjson.OPT_SERIALIZE_NUMPY
    encoders: dict[str, Callable[[], Any]] = {
        "json, tolist": lambda: json.dumps([row.tolist() for row in rows]),
        "orjson, tolist": lambda: orjson.dumps([row.tolist() for row in rows]),
        "orjson, numpy": lambda: orjson.dumps(rows, option=numpy),
        "base64 + orjson": lambda: orjson.dumps([base64.b64encode(row).decode() for row in rows]),
        "pybase64 + orjson": lambda: orjson.dumps([pybase64.b64encode_as_string(row) for row in rows]),
        "pybase64 + msgspec": lambda: msgspec.json.encode([pybase64.b64encode_as_string(row) for row in rows]),
    }
    return [
        {"part": part, "library": name, "microseconds": microseconds(work)}
        for part, libraries in (("decode 64 texts", decoders), ("encode 64 x 2560", encoders))
        for name, work in libraries.items()
    ]


def measure_tokenizer() -> list[dict[str, Any]]:
    """fastokens against Hugging Face tokenizers on fresh text, one core and many texts."""
    import fastokens
    import tokenizers

    from tests.qwen_tokenizer import write_qwen3_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        file = write_qwen3_tokenizer(Path(folder) / "tokenizer.json")
        plain, fast = tokenizers.Tokenizer.from_file(str(file)), fastokens.Tokenizer.from_file(str(file))
    rows = []
    for language in ("en", "zh", "ar"):
        libraries: dict[str, Callable[[list[str]], int]] = {
            "tokenizers": lambda texts: sum(len(row.ids) for row in plain.encode_batch_fast(texts)),
            "fastokens": lambda texts: len(fast.encode_batch_flat(texts, add_special_tokens=True)[0]) // 4,
        }
        for name, encode in libraries.items():
            corpus = Corpus(language)
            encode(corpus.lines(64))
            rates = []
            for _ in range(5):
                texts = [f"{place} {line}" for place, line in enumerate(corpus.lines(2000))]
                began = time.perf_counter()
                tokens = encode(texts)
                rates.append(tokens / (time.perf_counter() - began))
            rows.append({"part": f"tokenise {language}", "library": name, "tokens_per_s": statistics.median(rates)})
    return rows


async def _plain_app(scope: Any, receive: Any, send: Any) -> None:
    """Raw ASGI: the floor."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = msgspec.json.decode(message["body"], type=Body)
    answer = msgspec.json.encode({"n": len(body.input)})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


def _starlette_app() -> Starlette:
    async def embed(request: Request) -> Response:
        body = msgspec.json.decode(await request.body(), type=Body)
        return Response(msgspec.json.encode({"n": len(body.input)}), media_type="application/json")

    return Starlette(routes=[Route("/v1/embeddings", embed, methods=["POST"])])


def _fastapi_app() -> Any:
    from fastapi import FastAPI
    from pydantic import create_model

    app = FastAPI()
    model = create_model("Model", input=(str | list[str], ...), model=(str | None, None), dimensions=(int | None, None))

    def embed(body: Any) -> dict[str, int]:
        return {"n": len(body.input)}

    embed.__annotations__["body"] = model
    app.post("/v1/embeddings")(embed)
    return app


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[int]:
    """uvicorn in a thread on a free port."""
    # asyncio turns off the delay of small packets only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", **options))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield int(listener.getsockname()[1])
    server.should_exit = True
    thread.join(10)


def requests_per_second(port: int, seconds: float = 2.0) -> float:
    """One keep-alive connection, one small request after another."""
    body = b'{"input": "what is the capital of China?", "model": "m"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    request = head % len(body) + body
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            line.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):  # head and body may come apart
                answer += line.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            count += 1
    return count / seconds


def measure_server() -> list[dict[str, Any]]:
    """Protocol parsers, event loops and frameworks."""
    fast = functools.partial(serving, http="httptools", loop="uvloop")
    setups: dict[str, Any] = {
        "raw ASGI, httptools": fast(_plain_app),
        "raw ASGI, h11": serving(_plain_app, http="h11", loop="asyncio"),
        "Starlette + msgspec, httptools": fast(_starlette_app()),
    }
    if _HAS_FASTAPI:
        setups["FastAPI + pydantic, httptools"] = fast(_fastapi_app())
    rows = []
    for name, server in setups.items():
        with server as port:
            requests_per_second(port, 0.5)
            rows.append({"part": "server", "library": name, "requests_per_s": requests_per_second(port)})
    return rows


def main() -> None:
    """Parse the command line, measure, publish."""
    parts = {"json": measure_json, "tokenizer": measure_tokenizer, "server": measure_server}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=list(parts), default=list(parts))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report.publish("choices", [row for part in options.parts for row in parts[part]()], options.out)


if __name__ == "__main__":
    main()
