"""The simulation of the queue against queueing theory, and against what was measured on a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from anydim.engine.policy import Policy
from benchmarks import plan, simulate
from benchmarks.queueing import Clock, Engine, again, offer, poisson, saturate, spread, steady
from benchmarks.service_times import ServiceTimes

LENGTH = 100
SECONDS = 0.01  # of a batch of one text


def engine(clock: Clock, batch_tokens: int, queue_tokens: int = 10**9) -> Engine:
    times = ServiceTimes(floor=SECONDS, base=0.0, per_token=SECONDS / LENGTH, per_pair=0.0)
    one = Engine(clock, Policy(batch_tokens=batch_tokens, queue_tokens=queue_tokens, slice_tokens=4 * LENGTH), times)
    one._front.half = lambda texts, then: clock.at(clock.now, then)  # type: ignore[method-assign]  # no front end
    return one


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_text_a_batch_is_a_queue_that_theory_knows(load: float) -> None:
    """Mean time in an M/D/1 queue: service and load * service / (2 (1 - load)), by Pollaczek and Khinchine."""
    clock = Clock()
    only = engine(clock, LENGTH)
    seen = offer(clock, lambda: only, poisson(load / SECONDS, 0.0, 200.0, 3), spread(LENGTH, 0.0, LENGTH))
    clock.run()
    assert np.mean(seen.answered) == pytest.approx(SECONDS * (1 + load / (2 * (1 - load))), rel=0.08)


def test_one_client_waits_for_nobody_and_the_device_never_rests_for_two() -> None:
    for clients, rate in ((1, 1 / SECONDS), (2, 1 / SECONDS)):
        clock = Clock()
        only = engine(clock, LENGTH)
        seen = saturate(clock, only, clients, spread(LENGTH, 0.0, LENGTH), 0.0, 10.0)
        clock.run()
        assert seen.row()["requests_per_s"] == pytest.approx(rate, rel=0.01)
        assert seen.row()["p50_ms"] == pytest.approx(1e3 * clients * SECONDS, rel=0.01)


def test_the_real_queue_refuses_and_shares() -> None:
    clock = Clock()
    only = engine(clock, 10 * LENGTH, queue_tokens=50 * LENGTH)
    seen = offer(clock, lambda: only, steady(300, 0.0, 5.0), spread(LENGTH, 0.0, LENGTH))
    clock.run()
    assert seen.refused > 500
    assert len(seen.answered) + seen.refused == 1500
    clock = Clock()
    only = engine(clock, 10 * LENGTH)
    seen = offer(clock, lambda: only, steady(300, 0.0, 5.0), again(spread(LENGTH, 0.0, LENGTH), 20))
    clock.run()
    assert seen.row()["requests_per_s"] > 250  # three times what the device does: equal texts share a forward


def test_the_formula_is_what_was_measured() -> None:
    for file in plan.FILES.values():
        for row in ServiceTimes.of_file(file).errors(file):
            assert row["formula_ms"] == pytest.approx(row["measured_ms"], rel=0.05), (file.name, row)


@pytest.mark.parametrize("file", simulate.LOADS, ids=lambda file: str(file.stem))
def test_one_node_is_reproduced_but_for_one_figure(file: Path) -> None:
    rows = simulate.compare(simulate.Measured.of_file(file, simulate.TIMES))
    assert len(rows) == 24
    far = {(row["what"], row["figure"]) for row in rows if not row["near"]}
    assert far <= {("peak", "p99_ms")}  # docs/scale.md says so


def test_the_plan_is_arithmetic() -> None:
    options = argparse.Namespace(
        documents=1e9, document_tokens=512, busy=0.5, gpu_hour=2.0, object_gb_month=0.02, memory_gb_month=1.0
    )
    stored = {row["dim"]: row for row in plan.storage(options)}
    assert stored[2560]["float32"] == pytest.approx(10.24)
    assert stored[256]["int8"] == pytest.approx(0.26)  # a scale of four bytes beside each vector
    assert stored[1024]["binary"] == pytest.approx(0.128)
    (row,) = [
        row for row in plan.document_gpus(options) if (row["precision"], row["document_tokens"]) == ("bfloat16", 512)
    ]
    assert row["gpus"] == np.ceil(1e9 * 512 / 86_400 / (row["tokens_per_s_a_gpu"] * 0.5))
    money = {row["dim"]: row for row in plan.cost(options)}
    assert money[1024]["a_month_of_float32_in_objects"] == pytest.approx(4096 * 0.02)
    assert money[32]["gpus_bfloat16"] == money[2560]["gpus_bfloat16"] == row["gpus"] * 48
    day, hour = plan.one_command(options)
    assert day["documents_a_shard"] == 7802  # so many fill a shard with characters, before it has its most texts
    assert (day["shards"], hour["shards"]) == (128_173, 5_341)
    assert day["tb_twice_float32_2560"] == pytest.approx(20.48)
