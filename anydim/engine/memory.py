"""Memory: how much of a GPU a model may take, and how many tokens of a forward fit into it, measured.

It knows bytes, a device and a probe that runs so many tokens; it knows no models, no queue and no text.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, Self

import torch

from anydim.errors import ConfigError

_LOG = logging.getLogger(__name__)
_PROBE_TOKENS: Final = 8192  # enough for the slope; a large batch follows as the proof
_LEAST_TOKENS: Final = 64
_SPARE: Final = 0.95  # of the room: blocks of many sizes leave gaps between them
_STEP: Final = 64

Probe = Callable[[int], None]
"""Runs a forward of so many tokens at its worst, and lets go of it."""


class Meter(Protocol):
    """Where bytes are counted."""

    @property
    def allowed(self) -> int:
        """Bytes that weights and workspace may take together."""
        ...

    @property
    def taken(self) -> int:
        """Bytes that are taken for good."""
        ...

    def room(self) -> int:
        """Bytes that may still be taken."""
        ...

    def peak(self, work: Callable[[], None]) -> int:
        """Bytes that some work takes at its worst moment, beside what is taken already."""
        ...


class CudaMeter:
    """The memory of one GPU, as torch's allocator counts it for this process."""

    def __init__(self, device: torch.device, fraction: float) -> None:
        """Count on ``device``, of which ``fraction`` may be taken."""
        self._device = device
        self.total = torch.cuda.mem_get_info(device)[1]
        self.allowed = int(fraction * self.total)

    @property
    def free(self) -> int:
        """Bytes that no process holds."""
        return torch.cuda.mem_get_info(self._device)[0]

    @property
    def taken(self) -> int:
        """See Meter; blocks that torch keeps for later do not count."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self._device)

    def room(self) -> int:
        """See Meter; what other processes hold is not there either."""
        return max(0, min(self.allowed - self.taken, self.free))

    def peak(self, work: Callable[[], None]) -> int:
        """See Meter."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


def meter_of(device: torch.device, fraction: float) -> Meter | None:
    """What counts the memory of a device; None where nothing is counted, as on a CPU.

    Args:
        device: where the model runs.
        fraction: of its memory that may be taken.
    """
    return CudaMeter(device, fraction) if device.type == "cuda" else None


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a forward takes beside the weights.

    Attributes:
        fixed: bytes, however few tokens there are.
        per_token: bytes that each further token takes.
    """

    fixed: float
    per_token: float

    @classmethod
    def through(cls, few: int, few_bytes: int, many: int, many_bytes: int) -> Self:
        """The line through two measured forwards, but never one that is nearly level: what looks so is rounding."""
        slope = max((many_bytes - few_bytes) / (many - few), many_bytes / many / 4, 1.0)
        return cls(max(0.0, many_bytes - slope * many), slope)

    def bytes_of(self, tokens: int) -> int:
        """What a forward of so many tokens takes."""
        return math.ceil(self.fixed + self.per_token * tokens)

    def tokens_in(self, room: int) -> int:
        """Most tokens that fit into so many bytes."""
        return max(0, int((_SPARE * room - self.fixed) / self.per_token))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a device takes at once.

    Attributes:
        batch_tokens: most tokens in one forward of several texts.
        longest: most tokens of a single text, or None where the memory sets no limit below the model's own.
        weights_bytes: what the model takes, its graphs included.
        workspace_bytes: what such a batch takes beside it.
        allowed_bytes: what both may take together.

    The bytes are 0 where nothing was measured.
    """

    batch_tokens: int
    longest: int | None = None
    weights_bytes: int = 0
    workspace_bytes: int = 0
    allowed_bytes: int = 0


def measure(meter: Meter, probe: Probe, most: int) -> Workspace:
    """What a forward takes, from two probing ones of at most ``most`` tokens; smaller ones where these do not fit.

    Raises:
        torch.OutOfMemoryError: hardly a forward fits.
    """
    many = max(2, min(_PROBE_TOKENS, most))
    while True:
        few = max(1, many // 4)
        try:
            few_bytes, many_bytes = meter.peak(partial(probe, few)), meter.peak(partial(probe, many))
        except torch.OutOfMemoryError:
            if many <= _LEAST_TOKENS:
                raise
            many //= 2  # and once more, when the failed one has let go of its memory
        else:
            return Workspace.through(few, few_bytes, many, many_bytes)


def capacity(meter: Meter, probe: Probe, wanted: int, asked: bool, longest: int) -> Capacity:
    """How many tokens fit, proved by a batch of that size.

    Args:
        meter: where bytes are counted.
        probe: runs a forward.
        wanted: most tokens of a batch that anyone wants.
        asked: whether someone asked for that number by name.
        longest: most tokens of a text that the model reads.

    Raises:
        ConfigError: no useful batch fits.
    """
    try:
        workspace = measure(meter, probe, wanted)
    except torch.OutOfMemoryError:
        raise _nothing_left(meter) from None
    weights = meter.taken
    fits = workspace.tokens_in(meter.room())
    hoped = wanted if wanted <= fits else fits // _STEP * _STEP
    batch = _proved(probe, hoped)
    if batch < min(wanted, _LEAST_TOKENS):
        raise _nothing_left(meter)
    if asked and batch < wanted:
        _LOG.warning("--max-batch-tokens %d does not fit into the GPU's memory; batches have %d tokens", wanted, batch)
    most = fits if batch == hoped else batch
    return Capacity(
        batch_tokens=batch,
        longest=most if most < longest else None,
        weights_bytes=weights,
        workspace_bytes=workspace.bytes_of(batch),
        allowed_bytes=meter.allowed,
    )


def _proved(probe: Probe, tokens: int) -> int:
    """The most tokens up to ``tokens`` that do run; what was measured on smaller batches may be a little off."""
    while tokens:
        try:
            probe(tokens)
        except torch.OutOfMemoryError:
            tokens = tokens * 9 // 10
        else:
            break
    return tokens


def _nothing_left(meter: Meter) -> ConfigError:
    return ConfigError(
        f"beside the weights {gib(meter.room())} are left of the {gib(meter.allowed)} that --mem-fraction-static "
        "allows, too little for a batch: raise it, choose a smaller --dtype or --quantization, or take a larger GPU"
    )


def lack_of_room(need: int, allowed: int, total: int, free: int, smaller: str | None) -> str | None:
    """Why weights do not fit and which flag to change to what; None where they do.

    Args:
        need: bytes of the weights.
        allowed: bytes that ``--mem-fraction-static`` grants.
        total: bytes of the GPU.
        free: bytes of it that nobody holds.
        smaller: a flag that makes the weights smaller, or None where there is none.
    """
    wanted = need / _SPARE
    if need < allowed and need < free:
        return None
    instead = f"; or serve with {smaller}" if smaller else ""
    if wanted >= total:
        return f"the weights take {gib(need)}, the GPU has {gib(total)}: take a larger GPU or a smaller model{instead}"
    if need >= free:
        return (
            f"the weights take {gib(need)}, but {gib(total - free)} of the GPU's {gib(total)} are taken by others: "
            f"stop these, or choose another GPU with --device cuda:N{instead}"
        )
    fraction = min(1.0, math.ceil(100 * wanted / total) / 100)
    return (
        f"the weights take {gib(need)}, but only {gib(allowed)} of the GPU's {gib(total)} are allowed: "
        f"raise --mem-fraction-static to {fraction:.2f} or more{instead}"
    )


def bound_process(device: torch.device, fraction: float) -> None:
    """Let torch take no more than that share of a GPU in this process, whatever happens."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)


def gib(count: int) -> str:
    """Bytes for people, in GiB."""
    return f"{count / 2**30:.1f} GiB"
