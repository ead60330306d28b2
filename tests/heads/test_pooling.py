"""Pooling on packed states, against sentence-transformers' Pooling on padded ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling as Reference
from torch import Tensor

from anydim.heads.pooling import pool, rows_needed, scatter_pool
from anydim.types import Pooling

WIDTH = 12


def states(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Random packed states (T, D) and boundaries (C,)."""
    cu_seqlens_C = torch.tensor([0, *lengths]).cumsum(0).int()
    return torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(sum(lengths))), cu_seqlens_C


def ours(hidden_TD: Tensor, cu_seqlens_C: Tensor, pooling: Pooling) -> Tensor:
    """As the runner does: only the rows that pooling needs leave the model."""
    rows_R = rows_needed(pooling, cu_seqlens_C)
    return pool(hidden_TD if rows_R is None else hidden_TD[rows_R], pooling, cu_seqlens_C)


def theirs(hidden_TD: Tensor, lengths: list[int], pooling: Pooling) -> Tensor:
    """sentence-transformers, right-padded with poison."""
    texts = hidden_TD.split(lengths)
    padded_BLD = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True, padding_value=1e4)
    mask_BL = torch.nn.utils.rnn.pad_sequence([torch.ones(length).long() for length in lengths], batch_first=True)
    features = {"token_embeddings": padded_BLD, "attention_mask": mask_BL}
    embedding: Tensor = Reference(WIDTH, pooling_mode=pooling.value)(features)["sentence_embedding"]
    return embedding


@pytest.mark.parametrize("pooling", list(Pooling))
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_pooling_is_that_of_sentence_transformers(pooling: Pooling, lengths: list[int]) -> None:
    hidden_TD, cu_seqlens_C = states(lengths)
    torch.testing.assert_close(
        ours(hidden_TD, cu_seqlens_C, pooling), theirs(hidden_TD, lengths, pooling), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("pooling", list(Pooling))
def test_states_in_bfloat16_are_pooled_in_float32(pooling: Pooling) -> None:
    lengths = [300, 1, 17]
    hidden_TD, cu_seqlens_C = states(lengths)
    pooled_BD = ours(hidden_TD.bfloat16(), cu_seqlens_C, pooling)
    assert pooled_BD.dtype == torch.float32
    exact_BD = theirs(hidden_TD.bfloat16().float(), lengths, pooling)
    torch.testing.assert_close(pooled_BD, exact_BD, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("pooling", "rows"), [(Pooling.LAST, [2, 3, 8]), (Pooling.CLS, [0, 3, 4])])
def test_only_one_row_a_text_is_needed(pooling: Pooling, rows: list[int]) -> None:
    needed_R = rows_needed(pooling, states([3, 1, 5])[1])
    assert needed_R is not None
    assert needed_R.tolist() == rows


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX])
def test_means_and_maxima_need_every_row(pooling: Pooling) -> None:
    assert rows_needed(pooling, states([3, 1, 5])[1]) is None


@pytest.mark.parametrize("pooling", [Pooling.LAST, Pooling.CLS])
def test_free_slots_behind_the_texts_name_rows_that_exist(pooling: Pooling) -> None:
    """A graph's spare slots are texts of no tokens behind the last one; here they follow a batch without spare rows."""
    tokens = 5
    needed_R = rows_needed(pooling, torch.tensor([0, 2, tokens, tokens, tokens]))
    assert needed_R is not None
    assert needed_R[:2].tolist() == ([1, 4] if pooling is Pooling.LAST else [0, 2])
    assert (needed_R < tokens).all()


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.MAX])
def test_devices_without_segments_pool_the_same(pooling: Pooling) -> None:
    hidden_TD = torch.randn(11, 6, generator=torch.Generator().manual_seed(3))
    cu_seqlens_C = torch.tensor([0, 1, 5, 11], dtype=torch.int32)
    expected_BD = pool(hidden_TD, pooling, cu_seqlens_C)
    assert torch.allclose(scatter_pool(hidden_TD, pooling, cu_seqlens_C), expected_BD, atol=1e-6)
