"""Ray run: a service on a cluster, started or updated from here. It knows Serve's calls; what runs is in ray_serve.py.

Needs the extra ray.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ApplicationStatus

from anydim.config import ServerSettings, Settings
from anydim.deploy.cluster import clear_errors, connected, quiet
from anydim.deploy.pool import LOCAL
from anydim.deploy.ray_serve import application
from anydim.deploy.scaling import Scale
from anydim.deploy.service import NAME
from anydim.errors import ComputeFailed

_NEXT = "`serve status` and the logs of the replicas say more"


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
        target = application(settings, _sized(scale))
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


def _run(target: object) -> None:
    try:
        serve.run(target, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise ComputeFailed(f"the service has not started: {_why() or error}; {_NEXT}") from error


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
