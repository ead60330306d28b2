"""Memory on a real GPU: what is measured holds, a bound is kept, and running out of memory loses nobody.

Run: python -m pytest -m gpu tests/engine
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.engine import Engine
from anydim.engine.graphs import GraphBudget
from anydim.engine.load import load_engine
from anydim.engine.memory import CudaMeter, bound_process, capacity, measure
from anydim.engine.packing import pack
from anydim.errors import ConfigError
from anydim.models.build import build_model, weight_bytes
from anydim.models.card import read_card
from anydim.types import Batch, Item, OutputDtype
from benchmarks import shapes
from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.engine.queues import limits
from tests.pipeline import Pipeline

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA: Final = torch.device("cuda", 0)
HALF: Final = torch.bfloat16
MIB: Final = 1 << 20
SPEC: Final = Qwen3Spec(
    width=256, layers=2, heads=4, kv_heads=2, head_dim=64, inner=8192, vocab=640, positions=4096, scale=0.03, dtype=HALF
)
TOKEN_BYTES: Final = 2 * (SPEC.width + 3 * SPEC.inner)  # residual, gate and up, and their product
LONGEST: Final = 4096
LIBRARIES: Final = 96 * MIB  # cuBLAS keeps 32 MiB a stream as long as the process lives

Bound = Callable[[int], float]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with a wide feed-forward."""
    return write_qwen3(tmp_path_factory.mktemp("memory") / "model", SPEC)


def test_a_closed_engine_leaves_its_memory_to_other_processes(folder: Path) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    engine, _ = load_engine(read_card(folder), ModelSettings(dtype="bfloat16"), EngineSettings(), False)
    engine.run([Item(np.arange(5, 37, dtype=np.int32), SPEC.width)])
    assert torch.cuda.memory_reserved() > before + 4 * LIBRARIES
    engine.close()
    assert torch.cuda.memory_reserved() <= before + LIBRARIES


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    """It, on the GPU and warm."""
    loaded = Pipeline(folder, CUDA, HALF)
    loaded.runner.warm_up(16384, LONGEST, graphs=False)
    return loaded


@pytest.fixture
def bound(pipeline: Pipeline) -> Iterator[Bound]:
    """Allow so many bytes beside what the model holds; the share of the card that this is."""
    meter = CudaMeter(CUDA, 1.0)

    def allow(more: int) -> float:
        gc.collect()
        fraction = (meter.taken + more) / meter.total
        bound_process(CUDA, fraction)
        return fraction

    yield allow
    bound_process(CUDA, 1.0)


def texts(lengths: list[int], seed: int = 3) -> list[Item]:
    """Random texts of full width."""
    draw = np.random.default_rng(seed)
    return [Item(draw.integers(5, SPEC.vocab, length, dtype=np.int32), SPEC.width) for length in lengths]


def run(pipeline: Pipeline, batch: Batch) -> None:
    """One batch from start to end."""
    pipeline.runner.finish(pipeline.runner.start(batch))


def test_a_token_takes_what_the_shapes_say(pipeline: Pipeline) -> None:
    """Nothing but the residual stream stands beside gate, up and their product."""
    meter = CudaMeter(CUDA, 1.0)
    batch = pack(texts([512] * 32))
    peak = meter.peak(partial(run, pipeline, batch))
    assert peak <= 1.05 * TOKEN_BYTES * 16384 + 48 * MIB


def test_a_measured_line_holds_for_other_batches(pipeline: Pipeline) -> None:
    meter = CudaMeter(CUDA, 1.0)
    workspace = measure(meter, lambda tokens: pipeline.runner.probe(tokens, LONGEST), 16384)
    for lengths in ([16] * 1024, [512] * 32, [4096] * 4, [8, 100, 4096, 4096, 4096, 3988]):
        batch = pack(texts(lengths))
        peak = meter.peak(partial(run, pipeline, batch))
        assert peak <= 1.1 * workspace.bytes_of(16384), lengths
    assert workspace.per_token <= 1.2 * TOKEN_BYTES


def test_batches_fit_into_what_is_allowed(pipeline: Pipeline, bound: Bound) -> None:
    """Under a real bound: the largest batch is smaller, runs, and so does every mixture."""
    meter = CudaMeter(CUDA, bound(400 * MIB))
    found = capacity(meter, lambda tokens: pipeline.runner.probe(tokens, LONGEST), 16384, False, 32768)
    assert 2048 <= found.batch_tokens < 16384
    assert found.longest is not None
    draw = np.random.default_rng(0)
    items = texts([min(LONGEST, int(length)) for length in draw.lognormal(5, 1.2, 400) + 1])
    items = [Item(item.ids, 64, list(OutputDtype)[place % 6]) for place, item in enumerate(items)]
    with Engine(pipeline.runner, limits(found.batch_tokens), longest=found.longest) as engine:
        assert all(output.error is None for output in engine.submit(items).result(60))
    assert torch.cuda.memory_reserved(CUDA) <= meter.allowed


def test_out_of_memory_runs_halves_and_loses_nobody(pipeline: Pipeline, bound: Bound) -> None:
    items = texts([256] * 60 + [40] * 20)
    expected = Pipeline.stack(pipeline.run(items))
    bound(300 * MIB)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.runner.start(pack(items))
    gc.collect()
    with Engine(pipeline.runner, limits(1 << 20)) as engine:
        futures = [engine.submit(items), engine.submit(texts([100, 200], 4)), engine.submit(items[:3])]
        first, second, third = [future.result(60) for future in futures]
    assert all(output.error is None for output in second)
    assert (Pipeline.stack(first) * expected).sum(axis=1).min() >= 0.9999
    assert (Pipeline.stack(third) * expected[:3]).sum(axis=1).min() >= 0.9999


def test_a_single_text_that_does_not_fit_fails_alone(pipeline: Pipeline, bound: Bound) -> None:
    bound(120 * MIB)
    with Engine(pipeline.runner, limits(1 << 20)) as engine:
        outputs = engine.submit(texts([30, 4096, 50])).result(60)
    assert [output.error is None for output in outputs] == [True, False, True]


def test_weights_that_do_not_fit_name_the_flag_and_its_value(tmp_path: Path) -> None:
    """The 0.6B shape takes 1.1 GiB in bfloat16: more than a hundredth of the card or, on larger ones, not."""
    card = read_card(shapes.write("0.6b", tmp_path), "0.6b")
    total = CudaMeter(CUDA, 1.0).total
    with pytest.raises(ConfigError, match=r"weights take 1\.\d GiB, .* raise --mem-fraction-static to 0\.0\d or more"):
        load_engine(
            card,
            ModelSettings(load_format="dummy", dtype="bfloat16"),
            EngineSettings(device="cuda", mem_fraction_static=2**29 / total),
            show_progress=False,
        )


def test_a_start_with_hardly_any_room_takes_small_batches(folder: Path, bound: Bound) -> None:
    """The warm-up's own texts do not fit here; what fits is served all the same."""
    tight = Pipeline(folder, CUDA, HALF)
    meter = CudaMeter(CUDA, bound(100 * MIB))
    tight.runner.warm_up(16384, LONGEST, graphs=False)
    found = capacity(meter, lambda tokens: tight.runner.probe(tokens, LONGEST), 16384, False, LONGEST)
    assert 256 <= found.batch_tokens < 2048
    assert found.longest is not None
    with Engine(tight.runner, limits(found.batch_tokens), longest=found.longest) as engine:
        assert all(output.error is None for output in engine.submit(texts([found.longest, 8, 8])).result(60))


def test_a_model_in_eight_bits_is_loaded_within_what_is_said_of_it(tmp_path: Path) -> None:
    """The 0.6B shape: 1.1 GiB in bfloat16, 0.7 GiB in 8 bits with one layer twice."""
    card = read_card(shapes.write("0.6b", tmp_path), "0.6b")
    settings = ModelSettings(load_format="dummy", dtype="bfloat16", quantization="int8")
    need, meter = weight_bytes(card, HALF, "int8"), CudaMeter(CUDA, 1.0)
    peak = meter.peak(lambda: build_model(card, settings, CUDA, HALF, (), lambda *_: None))
    assert peak <= 1.1 * need + 64 * MIB
    assert need < 0.8 * weight_bytes(card, HALF)


@pytest.mark.parametrize(("seconds", "mib", "graphs"), [(60.0, 4096, 9), (0.0, 4096, 1), (60.0, 0, 0)])
def test_graphs_stay_within_their_budget(folder: Path, seconds: float, mib: int, graphs: int) -> None:
    limited, eager = Pipeline(folder, CUDA, HALF), Pipeline(folder, CUDA, HALF)
    limited.runner.warm_up(384, LONGEST, True, GraphBudget(seconds, mib * MIB))
    pool = limited.runner._graphs
    assert pool is not None
    assert len(pool._graphs) == graphs
    for lengths in ([20], [100, 200], [384], [7, 8, 9]):
        ids = [item.ids for item in texts(lengths)]
        assert (limited.vectors(ids) * eager.vectors(ids)).sum(axis=1).min() >= 0.9999
