"""How many replicas the tokens that wait ask for."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.config import AutoscalingPolicy

from anydim.deploy.scaling import BUSY_SHARE, POLICY, QUEUED_TOKENS, BusyClock, QueuedTokens


def wanted(waiting: list[float], busy: list[float], target: int = 1) -> int:
    """What Serve makes of the policy's number, which it rounds up."""
    told = {QUEUED_TOKENS: dict(enumerate(waiting)), BUSY_SHARE: dict(enumerate(busy))}
    context = SimpleNamespace(
        aggregated_metrics=told if waiting else {}, current_num_replicas=len(waiting), target_num_replicas=target
    )
    number, state = QueuedTokens(1000)(context)
    assert state == {}
    return math.ceil(number)


@pytest.mark.parametrize(
    ("waiting", "busy", "replicas"),
    [
        ([0, 0, 0], [0.1, 0.1, 0.1], 1),
        ([0, 0, 0], [0.9, 0.9, 0.9], 3),  # none waits, but two would not be enough
        ([0, 0, 0], [0.5, 0.5, 0.5], 2),
        ([2500, 0], [1.0, 0.4], 3),
        ([900], [1.0], 1),  # busy, and nobody waits for long: that is what a device is for
        ([0], [0.0], 0),
    ],
)
def test_waiting_tokens_bring_replicas_and_idle_ones_go(waiting: list[float], busy: list[float], replicas: int) -> None:
    assert wanted(waiting, busy) == replicas


def test_nothing_changes_before_anyone_has_told_anything() -> None:
    assert wanted([], [], target=4) == 4


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=20), st.integers(0, 10**6))
def test_more_waiting_tokens_never_mean_fewer_replicas(told: list[tuple[float, float]], more: int) -> None:
    waiting, busy = map(list, zip(*told, strict=True))
    assert wanted([waiting[0] + more, *waiting[1:]], busy) >= wanted(waiting, busy)


def test_serve_finds_the_policy_by_its_name() -> None:
    policy = AutoscalingPolicy(policy_function=POLICY, policy_kwargs={"target_queued_tokens": 1000})
    assert policy.get_policy().__name__ == QueuedTokens.__name__


def test_the_busy_share_is_that_since_the_last_look() -> None:
    clock = BusyClock()
    assert clock.share(5.0, 10.0) == 0.5
    assert clock.share(5.0, 20.0) == 0.0
    assert clock.share(15.0, 30.0) == 1.0
    assert clock.share(1.0, 4.0) == 0.25  # another engine, which counts from zero
    assert clock.share(1.0, 4.0) == 0.0
