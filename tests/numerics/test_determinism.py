"""Law 4 on the CPU: twice gives the same bits, and so does another load of the files; plain operations = selected ones.

What only a GPU has (graph replay, Triton kernels) is in test_gpu.py.
"""

import numpy as np
import pytest
import torch

from anydim.engine.embedding import Embedding
from anydim.engine.runner import Runner
from anydim.errors import ConfigError
from anydim.kernels import OP_NAMES
from tests.pipeline import CPU, Pipeline
from tests.shelf import Shelf
from tests.texts import EDGES, SENTENCES

TEXTS = (*SENTENCES, *EDGES)


@pytest.mark.parametrize("name", ["qwen3", "bert-mean", "roberta-cls", "xlm-roberta-max"])
def test_twice_gives_the_same_bits(shelf: Shelf, name: str) -> None:
    pipeline = shelf.ours(name)
    first = pipeline.embed(TEXTS)
    pipeline.embed(TEXTS[:3])  # other work in between must leave nothing behind
    assert first.tobytes() == pipeline.embed(TEXTS).tobytes()


@pytest.mark.parametrize("name", ["qwen3-prefixed-sharded", "bert-cls"])
def test_another_load_gives_the_same_bits(shelf: Shelf, name: str) -> None:
    assert shelf.ours(name).embed(TEXTS).tobytes() == Pipeline(shelf.folder(name)).embed(TEXTS).tobytes()


@pytest.mark.parametrize("name", ["qwen3", "bert-mean"])
def test_answers_stay_when_the_next_batch_runs(shelf: Shelf, name: str) -> None:
    pipeline = shelf.ours(name)
    outputs = pipeline.run(pipeline.items(TEXTS))
    kept = [output.values.copy() for output in outputs]
    pipeline.embed(TEXTS[::-1])
    for output, values in zip(outputs, kept, strict=True):
        np.testing.assert_array_equal(output.values, values)


@pytest.mark.parametrize("name", ["qwen3", "bert-max"])
def test_two_batches_in_flight(shelf: Shelf, name: str) -> None:
    from anydim.engine.packing import pack

    pipeline = shelf.ours(name)
    batches = [pack(pipeline.items(texts)) for texts in (TEXTS[:5], TEXTS[5:])]
    flights = [pipeline.runner.start(batch) for batch in batches]
    for batch, flight in zip(batches, flights, strict=True):
        later, alone = pipeline.runner.finish(flight), pipeline.runner.finish(pipeline.runner.start(batch))
        np.testing.assert_array_equal(pipeline.stack(later), pipeline.stack(alone))


@pytest.mark.parametrize("name", ["qwen3", "xlm-roberta-cls"])
def test_plain_operations_are_the_selected_ones(shelf: Shelf, name: str) -> None:
    plain = Pipeline(shelf.folder(name), plain_ops=tuple(sorted(OP_NAMES)))
    assert np.abs(plain.embed(TEXTS) - shelf.ours(name).embed(TEXTS)).max() <= 1e-6


@pytest.mark.parametrize("name", ["qwen3", "bert-cls"])
def test_rows_that_leave_the_last_layer_early_are_the_rows_picked_afterwards(shelf: Shelf, name: str) -> None:
    pruned = shelf.ours(name)
    whole = Pipeline(shelf.folder(name))
    task = Embedding(whole.card.pooling, whole.card.width, CPU)
    whole.runner = Runner(whole.model, task, CPU, torch.float32, prune=False)
    assert np.abs(whole.embed(TEXTS) - pruned.embed(TEXTS)).max() <= 1e-6


def test_an_unknown_operation_is_refused_by_name(shelf: Shelf) -> None:
    with pytest.raises(ConfigError, match=r"no_such.*rms_norm"):
        Pipeline(shelf.folder("qwen3"), plain_ops=("no_such",))
