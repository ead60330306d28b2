"""Pool: the actors that a job asks for. Imports no Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from anydim.engine.child import PRODUCT_CACHES, SHAPES_OF_A_JOB, bound_product_caches

LOCAL: Final = "local"
"""The address of a cluster of this machine alone, which ends with the command."""

_ON_OTHERS: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # what Ray calls being reachable from other machines


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The actors of a job.

    Attributes:
        address: of the cluster, see ``cluster.connected``.
        actors: how many; None for one a GPU, or one a machine where there is no GPU.
        gpus: GPUs of an actor; None for as many as share its model (``tp``) where the cluster has any.
        cpus: CPUs of an actor, which are also the threads of an engine on a CPU.
    """

    address: str
    actors: int | None = None
    gpus: float | None = None
    cpus: float = 1


def prepare(address: str) -> None:
    """Set what Ray reads when it is imported, which comes next: nobody is counted, and a cluster of this machine alone
    listens on loopback alone.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        os.environ.setdefault(_ON_OTHERS, "0")


def runtime_of_actors(environ: Mapping[str, str]) -> dict[str, Any]:
    """What Ray sets for a job's processes before they import anything, on whichever machine: the bounds of what torch's
    libraries keep on a CPU are those of the command, from its own environment where that says so.
    """
    variables = {name: environ[name] for name in PRODUCT_CACHES if name in environ}
    bound_product_caches(variables, SHAPES_OF_A_JOB)
    return {"env_vars": variables}
