"""Placing: which part of the machine each of several engines of a server takes, and each rank of an engine.

It knows settings and how many devices there are; it knows no models. Engine i of N with M ranks takes M devices from
number i x M on, counted from the one in ``--device``; on a CPU all share the threads.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from anydim.config import EngineSettings
from anydim.errors import ConfigError
from anydim.models.build import resolve_device


def placed(settings: EngineSettings, place: int) -> EngineSettings:
    """The settings of one of the server's engines: as if it were the only one, on its own devices.

    What is said of the whole server is divided: threads, the tokens that may wait, and the cache of vectors.

    Raises:
        ConfigError: there are fewer devices than the engines need.
    """
    if settings.dp * settings.tp == 1:
        return settings
    device = ranks_device(settings, place * settings.tp)
    return replace(
        settings,
        device=str(device),
        dp=1,
        threads=_share(settings, settings.dp) if device.type == "cpu" else settings.threads,
        max_queue_tokens=-(-settings.max_queue_tokens // settings.dp),
        vector_cache_mib=-(-settings.vector_cache_mib // settings.dp),
    )


def ranks_device(settings: EngineSettings, offset: int) -> torch.device:
    """The device that lies ``offset`` places behind the first one.

    Raises:
        ConfigError: there are fewer devices than the engines need.
    """
    first = resolve_device(settings.device)
    needed = settings.dp * settings.tp
    flags = " with ".join(f"--{name} {count}" for name in ("dp", "tp") if (count := getattr(settings, name)) > 1)
    if first.type == "mps" and needed > 1:
        raise ConfigError(f"{flags}: MPS is one device; several engines or ranks need CUDA devices or a CPU")
    if first.type != "cuda":
        return first
    start, there = first.index or 0, torch.cuda.device_count()
    if start + needed > there:
        behind = f" from cuda:{start} on" if start else ""
        raise ConfigError(f"{flags} needs {needed} CUDA devices{behind}, and this machine shows {there}")
    return torch.device("cuda", start + offset)


def rank_threads(settings: EngineSettings) -> int | None:
    """The CPU threads of each rank of an engine; None where torch decides."""
    if settings.tp == 1 or resolve_device(settings.device).type != "cpu":
        return settings.threads
    return _share(settings, settings.tp)


def _share(settings: EngineSettings, count: int) -> int:
    return max(1, (settings.threads or torch.get_num_threads()) // count)
