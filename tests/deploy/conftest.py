"""A real Ray cluster of two CPUs on loopback, started once for all tests of this folder."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil
import pytest

from anydim.deploy.pool import LOCAL, prepare

prepare(LOCAL)  # before anything imports Ray

TOKEN: Final = secrets.token_hex(
    32
)  # Ray remembers a process's first one, and other tests may come between two of ours


@pytest.fixture(scope="package")
def cluster() -> Iterator[str]:
    """The cluster's address."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)  # else Ray writes one below the user's home
        for who in ("REPLICA", "HANDLE"):
            patch.setenv(f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
        ray.init(address=LOCAL, num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


def processes_named(words: str) -> list[psutil.Process]:
    """Processes with this in their command lines, Ray's actors by their class among them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if words in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it holds before the time is over."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()
