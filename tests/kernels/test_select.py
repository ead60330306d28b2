"""Which operations a device gets, and that the choice works without Triton."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from anydim.errors import ConfigError
from anydim.kernels import OP_NAMES, plain_ops, select_ops


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
        "assert not flash.takes_prefixes\n"
        "assert kernels.plain_ops().takes_prefixes\n"
        "assert kernels.select_ops(torch.device('cuda'), torch.float32) == kernels.plain_ops()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
