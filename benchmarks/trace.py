"""What a device did, from torch's profiler: one event a kernel or copy, sorted into families.

Not a script. It knows the profiler and the names of kernels; it knows no engine. On a GPU only the device is traced,
kernels inside CUDA graphs included; tracing the host's operators would slow the run down. On a CPU the operators take
the kernels' place, so that the scripts run there too; their times say nothing.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from benchmarks.intervals import Span

_DEVICE: Final = ("kernel", "gpu_memcpy", "gpu_memset")
_MOVES: Final = ("gpu_memcpy", "gpu_memset")

# The first that fits names the family: a kernel that does two things counts as the earlier one.
_FAMILIES: Final = (
    ("rope", r"rope(?!r)|rotary"),
    ("attention", r"attend|attention|flash|fmha"),
    ("norm", r"norm"),
    ("activation", r"silu|gelu|swiglu"),
    ("GEMM", r"gemm|nvjet|cutlass|xmma|splitk|gemv|cublas|matmul|scaled_mm|_linear|addmm|::mm|mkldnn"),
    ("quantise", r"quanti"),
    ("copy", r"memcpy|memset|copy|gather|index|embedding|catarray|fill"),
)
FAMILIES: Final = (*(name for name, _ in _FAMILIES), "other")


@dataclass(frozen=True, slots=True)
class Event:
    """One kernel or copy; times in microseconds."""

    name: str
    family: str
    begin: float
    end: float

    @property
    def span(self) -> Span:
        """From begin to end."""
        return self.begin, self.end


def family_of(name: str, category: str = "kernel") -> str:
    """GEMM, attention, norm, rope, activation, quantise, copy or other, by a kernel's name."""
    if category in _MOVES:
        return "copy"
    lower = name.lower()
    return next((family for family, pattern in _FAMILIES if re.search(pattern, lower)), "other")


def events_of(trace: Mapping[str, Any], device: bool) -> list[Event]:
    """The device's events of a Chrome trace, in order of their begin; the operators' where ``device`` is false."""
    wanted = _DEVICE if device else ("cpu_op",)
    found = [
        Event(one["name"], family_of(one["name"], one["cat"]), float(one["ts"]), float(one["ts"]) + float(one["dur"]))
        for one in trace["traceEvents"]
        if one.get("ph") == "X" and one.get("cat") in wanted
    ]
    return sorted(found, key=lambda event: event.begin)


def traced(work: Callable[[], None], device: torch.device, keep: Path | None = None) -> list[Event]:
    """Run ``work`` under the profiler; ``keep`` is where to write the Chrome trace, which Perfetto shows.

    Raises:
        RuntimeError: the profiler saw nothing.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:  # as torch's own compiler does where it uses CUDA graphs, which some releases of CUPTI lose otherwise
        os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
        os.environ.setdefault("TEARDOWN_CUPTI", "0")
    # The operators run in the engine's thread, the profiler starts in this one; kernels are of no thread.
    config = None if on_gpu else _ExperimentalConfig(profile_all_threads=True)
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], experimental_config=config) as profiler:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        file = keep or Path(folder) / "trace.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(file))
        events = events_of(json.loads(file.read_text()), on_gpu)
    if not events:
        raise RuntimeError("the profiler saw no kernel: measure one case a process, or another release of torch")
    return events


def by_family(events: Iterable[Event]) -> dict[str, float]:
    """Microseconds of each family that occurs, the longest first; kernels that overlap both count whole."""
    return _sums((event.family, event) for event in events)


def by_name(events: Iterable[Event]) -> dict[str, float]:
    """Microseconds of each kernel name, the longest first."""
    return _sums((event.name, event) for event in events)


def _sums(pairs: Iterable[tuple[str, Event]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, event in pairs:
        sums[key] = sums.get(key, 0.0) + event.end - event.begin
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))
