"""Attention with shared prefixes on a GPU, in bfloat16 and float32, against its plain twin in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anydim.kernels import make_plan, place_plan, plain_ops, select_ops, tile_shape
from anydim.types import Prefixes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch says which products the poisoning makes slower
]

PLAIN = plain_ops()
OWN_LENGTHS = [700, 130, 64, 33, 33, 16, 7, 1, 1]
PREFIX_LENGTHS, PREFIX_OF = [1025, 100, 32, 17], [1, 0, 2, 3, 3, -1, 0, 1, 2]


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("longest", [16, 32, 512, 4096])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (16, 8, 128), (12, 12, 64), (10, 2, 32)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_attention_behind_prefixes(longest: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    ops = select_ops(torch.device("cuda"), dtype)
    shape = tile_shape(longest, heads, kv_heads, itemsize=dtype.itemsize)
    prefixes = Prefixes(np.array(PREFIX_LENGTHS, np.int32), np.array(PREFIX_OF, np.int32))
    plan = place_plan(make_plan(OWN_LENGTHS, shape, prefixes=prefixes), "cuda")
    tokens, columns = sum(OWN_LENGTHS) + sum(PREFIX_LENGTHS), (heads + 2 * kv_heads) * head_dim
    block_TC = torch.full((tokens + 64, columns), float("nan"), device="cuda", dtype=dtype)  # NaN behind the batch
    qkv_TC = block_TC[:tokens].normal_()
    bound = 1e-2 if dtype is torch.bfloat16 else 1e-5
    wanted_TO = PLAIN.attend(qkv_TC.double(), plan, heads, kv_heads, 0.1, True)
    assert off(ops.attend(qkv_TC, plan, heads, kv_heads, 0.1, True), wanted_TO) < bound
    q_RO = torch.randn(len(OWN_LENGTHS), heads * head_dim, device="cuda").to(dtype)
    wanted_RO = PLAIN.attend_rows(q_RO.double(), qkv_TC.double(), plan, heads, kv_heads, 0.1)
    for kv_TC in (qkv_TC, qkv_TC[:, heads * head_dim :]):
        assert off(ops.attend_rows(q_RO, kv_TC, plan, heads, kv_heads, 0.1), wanted_RO) < bound
