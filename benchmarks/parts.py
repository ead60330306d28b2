"""What each part of a request for one text costs, in microseconds, each measured on its own in one process.

Not a script; benchmarks.load runs it. It knows the parts of the hot route and calls them as the server does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from anydim import Embedder
from anydim.api.body import BodyDecoder
from anydim.api.dialects.openai import answer_of, embed_request_of
from anydim.api.dialects.openai_fields import EmbeddingRequest
from anydim.api.service import json_response
from anydim.api.vectors import Answer
from anydim.engine import wire
from anydim.engine.engine import Engine
from anydim.engine.metrics import Cause
from anydim.engine.packing import pack
from anydim.engine.policy import Policy
from anydim.intake.prompts import prefix_of
from anydim.intake.request import Truncate
from anydim.types import ANY_TIME, Batch, Item, Output
from benchmarks.corpus import Corpus
from benchmarks.traffic import request

_TURNS: Final = 300


def measure(folder: Path, corpus: Corpus) -> list[dict[str, Any]]:
    """One row a part: the median of fresh texts."""
    texts = corpus.lines(_TURNS)
    bodies = [request([text]).split(b"\r\n\r\n", 1)[1] for text in texts]
    decoder = BodyDecoder(EmbeddingRequest, False)
    with Embedder(str(folder), show_progress=False) as embedder:
        intake, engine = embedder.intake, embedder._engine
        asked = EmbeddingRequest(input="", encoding_format="base64")
        wanted = [embed_request_of(decoder.decode(body), ANY_TIME) for body in bodies]
        items = [intake.prepare(each)[0] for each in wanted]
        outputs = [engine.submit([item]).result()[0] for item in items]
        answers = [Answer("model", [item], [output]) for item, output in zip(items, outputs, strict=True)]
        runner = engine._loop._runner
        with Engine(_Echo(), Policy(batch_tokens=2048, queue_tokens=10**6, slice_tokens=512), 1) as idle:
            found = {
                "parse": _median(decoder.decode, bodies),
                "validate": _median(
                    lambda each: (intake.rule.resolve(None, None, 1), prefix_of(each, intake.card)), wanted
                ),
                "tokenise": _median(lambda text: intake.tokenizer.encode([text], Truncate.END, ""), texts),
                "cross to the engine and back": _median(_cross, list(zip(items, outputs, strict=True))),
                "queue": _median(lambda item: idle.submit([item]).result(), items),
                "run": _median(lambda item: runner.finish(runner.start(pack([item]))), items),
                "encode": _median(lambda answer: json_response(answer_of(answer, asked)), answers),
            }
        whole = _median(lambda text: embedder.embed([text], truncate="end"), texts)
    rows = [{"case": "parts", "part": name, "us": micros} for name, micros in found.items()]
    return [*rows, {"case": "parts", "part": "whole call in process", "us": whole}]


def with_http(rows: list[dict[str, Any]], http_us: float, front_us: float) -> list[dict[str, Any]]:
    """The rows, and what the same takes over HTTP: its p50, and the front end's time on a CPU."""
    whole = rows[-1]["us"]
    return [
        *rows,
        {"case": "parts", "part": "whole request over HTTP", "us": http_us},
        {"case": "parts", "part": "overhead of HTTP", "us": http_us - whole},
        {"case": "parts", "part": "CPU time of the front end", "us": front_us},
    ]


class _Echo:
    """A runner that takes no time."""

    def start(self, batch: Batch) -> Batch:
        return batch

    def finish(self, flight: Batch) -> list[Output]:
        return [Output(np.empty(0, np.float32)) for _ in flight.items]

    def rescue(self, batch: Batch) -> list[Output]:
        return self.finish(batch)

    def is_fatal(self, error: Exception) -> bool:
        return True

    def cause(self, error: Exception) -> Cause:
        return "failed"


def _cross(pair: tuple[Item, Output]) -> None:
    item, output = pair
    submit, parts = wire.pack_items(1, [item])
    wire.unpack_items(submit, memoryview(b"".join(parts)))
    result, values = wire.pack_outputs(1, [output])
    wire.unpack_outputs(result, memoryview(b"".join(values)), [item])


def _median(work: Callable[[Any], object], inputs: list[Any]) -> float:
    """Microseconds of a call, over all inputs; the first tenth warms up."""
    taken = []
    for each in inputs:
        began = time.perf_counter()
        work(each)
        taken.append(1e6 * (time.perf_counter() - began))
    return statistics.median(taken[len(taken) // 10 :])
