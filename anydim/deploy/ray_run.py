"""Ray run: a service on a cluster, started or updated from here. It knows Serve's calls; what runs is in ray_serve.py.

Needs the extra ray.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus

from anydim.config import ServerSettings, Settings
from anydim.deploy.cluster import clear_errors, connected, lack_of, quiet
from anydim.deploy.pool import LOCAL
from anydim.deploy.ray_serve import application
from anydim.deploy.scaling import Scale
from anydim.deploy.service import NAME, gpus_of
from anydim.errors import AnydimError, ComputeFailed, ConfigError

_LOG: Final = logging.getLogger(__name__)
_NEXT: Final = "`serve status` and the logs of the replicas say more"


@contextlib.contextmanager
def running_service(settings: Settings, scale: Scale, address: str) -> Iterator[int]:
    """The port of a service that runs; where one of that name runs already, its replicas are replaced in turn.

    On a cluster of this machine alone the service ends with the block, everywhere else it goes on.

    Raises:
        ConfigError: there is no cluster at that address, or a setting does not fit.
        ComputeFailed: no replica has become ready.
    """
    with connected(address), clear_errors(_NEXT):
        quiet()
        scale = _sized(scale)
        _check_room(settings, scale, address)
        target = application(settings, scale)
        serve.start(proxy_location="EveryNode", http_options=_http(settings.server))
        _run(target)
        try:
            yield settings.server.port
        finally:
            if address == LOCAL:
                serve.shutdown()


def _sized(scale: Scale) -> Scale:
    """Without GPUs, where none were asked for and the cluster has none."""
    return replace(scale, gpus=0) if scale.gpus is None and not ray.cluster_resources().get("GPU") else scale


def _check_room(settings: Settings, scale: Scale, address: str) -> None:
    """Say what Serve would wait for without a word.

    Raises:
        ConfigError: this machine alone is the cluster, and it has too little.
    """
    count = scale.min_replicas
    if told := lack_of({"GPU": count * gpus_of(settings, scale), "CPU": count * scale.cpus}):
        if address == LOCAL:
            raise ConfigError(f"the replicas need more than this machine has: {told}; see --gpus and --cpus")
        _LOG.warning("the replicas need more than the cluster has now: %s; waiting for more machines", told)


def _run(target: object) -> None:
    try:
        serve.run(target, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise ComputeFailed(f"the service has not started: {_short(_why() or str(error))}; {_NEXT}") from error


def _short(told: str) -> str:
    """Of a traceback that ends with an error of ours its words; else all of it."""
    ours = [line.partition(": ")[2] for line in told.splitlines() if line.startswith(f"{AnydimError.__module__}.")]
    return ours[-1] if ours else told


def _why() -> str:
    """What Serve says of the application."""
    found = serve.status().applications.get(NAME)
    if found is None or found.status is ApplicationStatus.RUNNING:
        return ""
    words = [found.message, *(one.message for one in found.deployments.values())]
    return next((word for word in reversed(words) if word), "")


def _http(server: ServerSettings) -> HTTPOptions:
    tls = {} if server.tls_cert is None else {"ssl_certfile": server.tls_cert, "ssl_keyfile": server.tls_key}
    return HTTPOptions(host=server.host, port=server.port, **tls)
