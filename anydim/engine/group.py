"""Group: the process group through which the ranks of an engine add up, on one machine.

It knows torch.distributed; it knows no models and no processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from anydim.errors import ConfigError

_LOOPBACK: Final = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
_INTERFACES: Final = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


class Group:
    """One rank's membership."""

    def __init__(self, store: Path, rank: int, count: int, device: torch.device, timeout: float) -> None:
        """Prepare; ``join`` opens it.

        Args:
            store: a file that all ranks share, in which they find each other.
            rank: which one this is.
            count: how many there are.
            device: where its tensors lie; NCCL adds up on CUDA devices, gloo on a CPU.
            timeout: seconds after which a sum that the others do not join fails.
        """
        self._store = store
        self._rank = rank
        self._count = count
        self._device = device
        self._timeout = timedelta(seconds=timeout)

    def join(self) -> None:
        """Wait until all ranks are there.

        Raises:
            ConfigError: the process has a process group already.
        """
        if dist.is_initialized():
            raise ConfigError("tp: this process has a torch.distributed process group already; serve the model instead")
        for name in _INTERFACES if _LOOPBACK else ():
            os.environ.setdefault(name, _LOOPBACK or "")  # the ranks talk on this machine alone
        # Within CUDA graphs sums go through NCCL's own buffers: a graph's memory is not made known to other processes.
        os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
        is_cuda = self._device.type == "cuda"
        store = dist.FileStore(str(self._store), self._count)  # type: ignore[attr-defined]  # torch names it so itself
        dist.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=store,
            rank=self._rank,
            world_size=self._count,
            timeout=self._timeout,
            device_id=self._device if is_cuda else None,
        )

    def total(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over all ranks, in place; on a GPU without waiting for it."""
        dist.all_reduce(tensor)

    def abort(self) -> None:
        """Give up what is under way, since a rank is gone: who waits for a sum gets an error."""
        with contextlib.suppress(Exception):  # nothing may be under way, and the process may be about to end
            world = dist.group.WORLD
            if world is not None and self._device.type == "cuda":
                world.abort()

    def leave(self) -> None:
        """Close it; the other ranks do the same."""
        with contextlib.suppress(Exception):  # a rank that is gone cannot be waited for
            dist.destroy_process_group()
