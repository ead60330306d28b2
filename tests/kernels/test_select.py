"""Which operations a device gets, and that the choice works without Triton."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from anydim.errors import ConfigError
from anydim.kernels import OP_NAMES, attend_by_length, make_plan, plain_ops, select_ops, tile_shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_gets_plain_torch(dtype: torch.dtype) -> None:
    assert select_ops(torch.device("cpu"), dtype) == plain_ops()
    assert select_ops(torch.device("cpu"), dtype, OP_NAMES) == plain_ops()


def test_an_unknown_operation_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"atend.*attend.*silu_mul"):
        select_ops(torch.device("cpu"), torch.float32, frozenset({"atend"}))


def test_kernels_work_where_triton_is_absent() -> None:
    """A GPU without Triton gets torch's attention; a CPU never looks for Triton."""
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import importlib.util, torch\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "from anydim import kernels\n"
        "assert kernels.select_ops(torch.device('cpu'), torch.float32) == kernels.plain_ops()\n"
        "flash = kernels.select_ops(torch.device('cuda'), torch.bfloat16)\n"
        "assert flash.attend.__module__ == 'anydim.kernels.attention_flash'\n"
        "assert kernels.select_ops(torch.device('cuda'), torch.float32) == kernels.plain_ops()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_attention_can_be_chosen_by_length() -> None:
    qkv_TC, calls = torch.randn(9, 6 * 32), []
    plain = plain_ops()

    def named(name: str):  # type: ignore[no-untyped-def]
        return lambda *args: calls.append(name) or plain.attend(*args)

    ops = replace(plain, attend=attend_by_length(named("short"), named("long"), 4))
    for lengths in ([5, 4], [4, 4, 1]):
        ops.attend(qkv_TC, make_plan(lengths, tile_shape(5, 2, 2)), 2, 2, 0.2, True)
    assert calls == ["long", "short"]
