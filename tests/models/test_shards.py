"""One rank's part of a model: what it holds, what it reads, and that the parts together are the whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from anydim.config import ModelSettings
from anydim.engine.packing import pack
from anydim.engine.staging import stage
from anydim.errors import ConfigError
from anydim.kernels import make_plan, tile_shape
from anydim.models.build import build_model
from anydim.models.card import ModelCard, read_card
from anydim.models.packed import Model
from anydim.models.shards import Shard, shard_card
from anydim.types import Item
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3

CPU = torch.device("cpu")


class Meeting:
    """Sums over ranks that are threads of this process."""

    def __init__(self, count: int) -> None:
        self._parts: list[Tensor | None] = [None] * count
        self._barrier = threading.Barrier(count, timeout=60)

    def total(self, rank: int) -> Callable[[Tensor], None]:
        """What the Shard of a rank calls."""

        def total(tensor: Tensor) -> None:
            self._parts[rank] = tensor.clone()
            self._barrier.wait()
            whole = torch.stack([part for part in self._parts if part is not None]).sum(0)
            self._barrier.wait()
            tensor.copy_(whole)

        return total


def build(card: ModelCard, how: ModelSettings, shard: Shard | None = None, dtype: torch.dtype = torch.float32) -> Model:
    part = card if shard is None else shard_card(card, shard.count)
    return build_model(part, how, CPU, dtype, (), lambda *_: None, shard)


@torch.inference_mode()
def forward(model: Model, texts: list[list[int]]) -> Tensor:
    """The states of all tokens, in the order of the packed batch."""
    batch = pack([Item(np.array(ids, np.int32), 1) for ids in texts])
    shape = tile_shape(8, *model.head_counts, itemsize=4)
    return model(stage(batch, make_plan(np.diff(batch.cu_seqlens_C), shape), CPU).packed)


def together(card: ModelCard, how: ModelSettings, count: int, texts: list[list[int]]) -> list[Tensor]:
    """The states that each rank ends with."""
    meeting = Meeting(count)
    models = [build(card, how, Shard(rank=rank, count=count, total=meeting.total(rank))) for rank in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda model: forward(model, texts), models))


shapes = st.builds(
    lambda count, groups, queries, half, inner, width, bias: (
        count,
        Qwen3Spec(
            width=width,
            layers=2,
            heads=count * groups * queries,
            kv_heads=count * groups,
            head_dim=2 * half,
            inner=count * inner,
            vocab=97,
            bias=bias,
        ),
    ),
    st.integers(2, 4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(2, 9),
    st.integers(1, 37),
    st.integers(5, 40),
    st.booleans(),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes)
def test_all_ranks_together_are_transformers_on_any_shape(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, Qwen3Spec]
) -> None:
    count, spec = shape
    folder = write_qwen3(tmp_path_factory.mktemp("odd") / "model", spec)
    texts = [[5], [3, 1, 4, 1, 5, 9, 2], list(range(20))]
    states = together(read_card(folder), ModelSettings(), count, texts)
    reference = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = torch.cat([reference(torch.tensor([ids])).last_hidden_state[0] for ids in texts])
    for each in states:
        assert torch.equal(each, states[0])  # no rank drifts from the others
    torch.testing.assert_close(states[0], wanted, atol=2e-5, rtol=2e-5)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes)
def test_every_value_of_a_layer_is_on_one_rank(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, Qwen3Spec]
) -> None:
    count, spec = shape
    folder = write_qwen3(tmp_path_factory.mktemp("odd") / "model", spec)
    stored = load_file(folder / "model.safetensors")
    parts = [
        dict(build(read_card(folder), ModelSettings(), Shard(rank=rank, count=count, total=print)).named_parameters())  # type: ignore[attr-defined]
        for rank in range(count)
    ]
    q, kv = spec.heads * spec.head_dim // count, spec.kv_heads * spec.head_dim // count
    qkv = [part["layers.1.qkv_proj"].split([q, kv, kv]) for part in parts]
    for place, name in enumerate("qkv"):
        whole = torch.cat([each[place] for each in qkv])
        assert torch.equal(whole, stored[f"layers.1.self_attn.{name}_proj.weight"])
    gate_up = [part["layers.1.gate_up_proj"].chunk(2) for part in parts]
    for place, name in enumerate(("gate", "up")):
        assert torch.equal(torch.cat([each[place] for each in gate_up]), stored[f"layers.1.mlp.{name}_proj.weight"])
    for ours, theirs in (("o_proj", "self_attn.o_proj"), ("down_proj", "mlp.down_proj")):
        whole = torch.cat([part[f"layers.1.{ours}"] for part in parts], dim=1)
        assert torch.equal(whole, stored[f"layers.1.{theirs}.weight"])
    for part in parts:
        assert torch.equal(part["embed_tokens"], stored["embed_tokens.weight"])


def test_random_weights_are_those_of_the_whole(tmp_path: Path) -> None:
    card = read_card(write_qwen3(tmp_path / "model", Qwen3Spec()))
    texts = [[1, 2, 3], list(range(40))]
    whole = forward(build(card, ModelSettings(load_format="dummy")), texts)
    torch.testing.assert_close(together(card, ModelSettings(load_format="dummy"), 2, texts)[0], whole)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_eight_bit_ranks_are_as_near_to_the_truth_as_one(tmp_path: Path, kind: str) -> None:
    card = read_card(write_qwen3(tmp_path / "model", Qwen3Spec()))
    texts = [list(range(place, place + 30)) for place in range(20)]
    truth, how = forward(build(card, ModelSettings()), texts), ModelSettings(quantization=kind)  # type: ignore[arg-type]
    alone, parted = forward(build(card, how), texts), together(card, how, 2, texts)[0]
    assert distance(parted, truth) < 1.1 * distance(alone, truth)


def distance(states_TD: Tensor, truth_TD: Tensor) -> float:
    return float((1 - torch.cosine_similarity(states_TD, truth_TD)).mean())


def test_a_rank_reads_its_part_of_the_file_and_no_more(tmp_path: Path) -> None:
    spec = Qwen3Spec(width=256, layers=4, heads=8, kv_heads=4, head_dim=64, inner=1024, vocab=300)
    card = read_card(write_qwen3(tmp_path / "model", spec))
    size = (card.folder / "model.safetensors").stat().st_size
    whole = read_while(lambda: build(card, ModelSettings()))
    part = read_while(lambda: build(card, ModelSettings(), Shard(rank=3, count=4, total=print)))
    shared = 4 * 256 * 300  # the embedding is whole on every rank
    assert size < whole < 1.02 * size + 100_000
    assert part < (size - shared) / 4 + shared + 100_000  # headers, and files of other libraries


def read_while(work: Callable[[], object]) -> int:
    """Bytes that this process reads from files meanwhile."""
    before = psutil.Process().io_counters().read_chars
    work()
    return psutil.Process().io_counters().read_chars - before


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (4, "--tp 4 (tp): model has num_attention_heads 6, which 4 ranks cannot share equally; possible are 1, 2"),
        (3, "--tp 3 (tp): model has num_key_value_heads 2, which 3 ranks cannot share equally; possible are 1, 2"),
    ],
)
def test_what_cannot_be_divided_is_told_with_what_can(tmp_path: Path, count: int, words: str) -> None:
    card = read_card(write_qwen3(tmp_path / "model", Qwen3Spec()))
    with pytest.raises(ConfigError) as caught:
        shard_card(card, count)
    assert caught.value.message == words


def test_small_encoders_are_refused_with_what_to_take_instead(tmp_path: Path) -> None:
    card = read_card(write_encoder(tmp_path / "model", EncoderSpec()))
    with pytest.raises(ConfigError, match=r"--tp 2 \(tp\): .*bert.*--dp 2"):
        shard_card(card, 2)
