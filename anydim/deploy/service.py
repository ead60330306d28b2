"""Service: what a Serve config says of a deployment, and the KubeRay manifest around it. Imports no Ray and no torch.

It knows settings and the names that Ray and KubeRay give to things; it starts nothing.

Source: Ray Serve's schema of config files; KubeRay's RayService, ray.io/v1.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from anydim.config import Settings, changed, load_settings
from anydim.deploy.scaling import POLICY, Scale
from anydim.errors import ConfigError
from anydim.version import VERSION

NAME: Final = "anydim"
"""Of the application and of its deployment."""

BUILDER: Final = "anydim.deploy.ray_serve:app"
"""Where Ray Serve finds the application."""

SECRET: Final = "anydim-api-key"
"""The Kubernetes Secret whose entry `key` holds the key that clients must send."""

_LOOK_SECONDS: Final = 0.5  # between looks whether a replica that is to stop has answered everyone
_LAST_SECONDS: Final = 10.0  # to end the engine, behind the drain
_HTTP_PORT: Final = 8000  # where KubeRay's service looks for Serve
_RAY: Final = "2.60.0"  # where Ray is not installed
_PROXY: Final = ("host", "port", "tls_cert", "tls_key", "http_workers")


def settings_of(args: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings behind the args of a Serve config.

    Raises:
        ConfigError: a setting is unknown or does not fit, or a key stands among them.
    """
    given = {name.replace("-", "_"): value for name, value in args.items()}
    if "api_key" in given:
        raise ConfigError(
            "api_key: Ray shows the args of an application to everyone; put keys into a file and name it as "
            "api_key_file, or set ANYDIM_API_KEY in the environment of the cluster's machines"
        )
    file = given.pop("config", None)
    models = given.pop("model", None)
    names = [models] if isinstance(models, str) else list(models or ())
    flags = {**given, "model": names[0]} if names else given
    return load_settings(flags, environ, None if file is None else Path(file), names[1:])


def deployment_options(settings: Settings, scale: Scale) -> dict[str, Any]:
    """What the deployment is told, as it stands in a Serve config too."""
    policy = {"policy_function": POLICY, "policy_kwargs": {"target_queued_tokens": scale.target_queued_tokens}}
    return {
        "max_ongoing_requests": scale.ongoing_requests,
        "max_surge_percent": 100,  # an old replica serves until its successor is ready
        "graceful_shutdown_wait_loop_s": _LOOK_SECONDS,
        "graceful_shutdown_timeout_s": settings.server.drain_timeout + _LAST_SECONDS,
        "autoscaling_config": {
            "min_replicas": scale.min_replicas,
            "max_replicas": scale.max_replicas,
            "upscale_delay_s": scale.upscale_delay,
            "downscale_delay_s": scale.downscale_delay,
            "policy": policy,
        },
        "ray_actor_options": {"num_cpus": scale.cpus, "num_gpus": gpus_of(settings, scale)},
    }


def gpus_of(settings: Settings, scale: Scale) -> float:
    """GPUs of a replica: what was asked for, else as many as its engines use."""
    if scale.gpus is not None:
        return scale.gpus
    return 0 if settings.engine.device in ("cpu", "mps") else settings.engine.tp * settings.engine.dp


def serve_config(settings: Settings, scale: Scale, environ: Mapping[str, str]) -> dict[str, Any]:
    """A config for `serve deploy`: the application, its settings and its deployment. It holds no key.

    Raises:
        ConfigError: the settings cannot be written as args.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": settings.server.host, "port": settings.server.port, **_tls(settings)},
        "applications": [_application(settings, scale, _args(settings, environ))],
    }


def kuberay_manifest(settings: Settings, scale: Scale, image: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """A RayService: a cluster that grows with the service, and the service on it.

    Args:
        settings: of the service.
        scale: how it grows.
        image: a container image with Ray and anydim.
        environ: the environment that the settings were read with, whose ANYDIM_* variables are not the cluster's.

    Raises:
        ConfigError: the settings cannot be written as args.
    """
    args = {**_args(settings, environ), "host": "0.0.0.0"}
    for name in _PROXY[1:]:
        args.pop(name, None)
    inner = {
        "http_options": {"host": "0.0.0.0", "port": _HTTP_PORT},
        "applications": [_application(settings, scale, args)],
    }
    gpus = gpus_of(settings, scale)
    worker = {"cpu": f"{max(1, round(scale.cpus)) + 1}", "memory": "16Gi"}
    devices = {"nvidia.com/gpu": f"{gpus:g}"} if gpus else {}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME},
        "spec": {
            "serveConfigV2": inner,
            "rayClusterConfig": {
                "rayVersion": ray_version(),
                "enableInTreeAutoscaling": True,
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": _pod("ray-head", image, {"cpu": "2", "memory": "8Gi"}, {}, _HEAD_PORTS),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "engines",
                        "replicas": scale.min_replicas,
                        "minReplicas": scale.min_replicas,
                        "maxReplicas": 2 * scale.max_replicas,  # a rolling update needs room for both versions
                        "rayStartParams": {},
                        "template": _pod("ray-worker", image, worker, devices, ()),
                    }
                ],
            },
        },
    }


def ray_version() -> str:
    """The installed version of Ray, else the one that was tested."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return _RAY


def default_image() -> str:
    """The image that docs/ray.md says how to build."""
    return f"anydim-ray:{VERSION}"


_HEAD_PORTS: Final = (("gcs", 6379), ("dashboard", 8265), ("client", 10001), ("serve", _HTTP_PORT))


def _pod(
    name: str, image: str, size: Mapping[str, str], devices: Mapping[str, str], ports: tuple[tuple[str, int], ...]
) -> dict[str, Any]:
    key = {"secretKeyRef": {"name": SECRET, "key": "key"}}
    container = {
        "name": name,
        "image": image,
        "env": [{"name": "ANYDIM_API_KEY", "valueFrom": key}],
        "resources": {"requests": {**size, **devices}, "limits": {**size, **devices}},
    }
    if ports:
        container["ports"] = [{"name": word, "containerPort": port} for word, port in ports]
    return {"spec": {"containers": [container]}}


def _application(settings: Settings, scale: Scale, args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": NAME,
        "route_prefix": "/",
        "import_path": BUILDER,
        "args": dict(args),
        "deployments": [{"name": NAME, **deployment_options(settings, scale)}],
    }


def _args(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Settings by name, as ``settings_of`` reads them; keys stay out."""
    sections = (settings.model, settings.engine, settings.server, settings.index)
    found = {name: value for section in sections for name, value in changed(section).items() if name != "api_key"}
    args = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
    rerankers = set(settings.model.reranker)
    more = [other.model for other in settings.others if other.model not in rerankers]
    if more:
        args["model"] = [settings.model.model, *more]
    bare = {name: value for name, value in environ.items() if not name.startswith("ANYDIM_")}
    if settings_of(args, bare).others != settings.others:
        raise ConfigError(
            "[[models]] tables with settings of their own cannot stand in a Serve config: copy the TOML file to the "
            "cluster's machines, and write its path there as args: {config: PATH}"
        )
    return args


def _tls(settings: Settings) -> dict[str, str]:
    if settings.server.tls_cert is None:
        return {}
    return {"ssl_certfile": settings.server.tls_cert, "ssl_keyfile": settings.server.tls_key or ""}
