"""Scaling: how many replicas a service needs, from the tokens that wait in their engines. It knows numbers; no Ray.

Source: Ray Serve's custom autoscaling policies, which call it with what every replica has told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

QUEUED_TOKENS: Final = "queued_tokens"
BUSY_SHARE: Final = "busy_share"
POLICY: Final = "anydim.deploy.scaling:QueuedTokens"
"""Where Ray Serve finds the policy."""

_MOST_BUSY: Final = 0.85  # of the time; replicas are not taken away where the others would have more to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a service grows and shrinks.

    Attributes:
        min_replicas: replicas that always run.
        max_replicas: most replicas.
        target_queued_tokens: tokens that may wait in a replica on average; where more do, more replicas are wanted.
        upscale_delay: seconds for which more are needed before they are started.
        downscale_delay: seconds for which fewer are enough before one is stopped.
        gpus: GPUs of a replica; None for as many as its engines use.
        cpus: CPUs of a replica.
        ongoing_requests: most requests in a replica at once; its engine refuses by tokens what is too much before that.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_queued_tokens: int = 32_768
    upscale_delay: float = 30.0
    downscale_delay: float = 600.0
    gpus: float | None = None
    cpus: float = 1.0
    ongoing_requests: int = 1000


class QueuedTokens:
    """The policy: as many replicas as make the mean of waiting tokens what it may be.

    Tokens that wait say when there are too few replicas, not when there are too many: none wait before one replica that
    is nine tenths busy, nor before ten that are idle. So replicas are taken away only as far as the device time that
    all of them use, together, fits in what remains.
    """

    def __init__(self, target_queued_tokens: int) -> None:
        """Aim at so many waiting tokens a replica."""
        self._target = target_queued_tokens

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """The wanted replicas, and no state; Serve rounds up and applies delays and bounds."""
        told = context.aggregated_metrics or {}
        waiting, busy = told.get(QUEUED_TOKENS) or {}, told.get(BUSY_SHARE) or {}
        if not waiting:  # nobody has said anything yet
            return context.target_num_replicas, {}
        by_queue = sum(waiting.values()) / self._target
        by_use = min(sum(busy.values()) / _MOST_BUSY, context.current_num_replicas)
        return max(by_queue, by_use), {}


class BusyClock:
    """The share of the time in which a device had work, since the last time that someone asked."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._busy = self._up = 0.0

    def share(self, busy_seconds: float, uptime_seconds: float) -> float:
        """The share, from what an engine has counted in all; an engine that was started again counts from zero."""
        busy, up = busy_seconds - self._busy, uptime_seconds - self._up
        if up < 0 or busy < 0:
            busy, up = busy_seconds, uptime_seconds
        self._busy, self._up = busy_seconds, uptime_seconds
        return min(1.0, busy / up) if up > 0 else 0.0
