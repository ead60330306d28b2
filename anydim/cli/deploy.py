"""Deploy: `anydim deploy ray`, a service on a Ray cluster, or the files that describe it.

It knows the command's words and what is printed; what a service is, is said in deploy/.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from anydim.cli.listen import address_to_open, is_loopback
from anydim.config import Settings
from anydim.deploy.pool import LOCAL, prepare
from anydim.deploy.scaling import Scale
from anydim.deploy.service import NAME, default_image, kuberay_manifest, serve_config
from anydim.errors import ConfigError, MissingExtra


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployJob:
    """What is asked for.

    Attributes:
        address: of the cluster.
        scale: how the service grows.
        kind: ``serve`` or ``kuberay`` to write a file and start nothing; None to start.
        output: the file; None for standard output.
        image: of the containers; None for the one that docs/ray.md builds.
    """

    address: str
    scale: Scale
    kind: str | None
    output: Path | None
    image: str | None


def run_deploy(settings: Settings, job: DeployJob) -> int:
    """Start or update the service, or write what describes it.

    Returns:
        The exit code.

    Raises:
        ConfigError: a setting does not fit, or there is no cluster.
        MissingExtra: Ray is not installed.
        ComputeFailed: the replicas do not start.
    """
    if job.scale.min_replicas > job.scale.max_replicas:
        least, most = job.scale.min_replicas, job.scale.max_replicas
        raise ConfigError(f"--min-replicas {least} is more than --max-replicas {most}")
    if job.kind is None:
        if job.output is not None or job.image is not None:
            raise ConfigError("-o and --image go with --print serve or --print kuberay")
        return _start(settings, job)
    _write(as_yaml(_described(settings, job)), job.output)
    return 0


def as_yaml(document: dict[str, Any]) -> str:
    """A document as YAML; a Serve config inside a manifest as a block of text, which is what KubeRay wants."""
    try:
        import yaml
    except ImportError:
        raise MissingExtra("files for Ray need a package: pip install 'anydim[ray]'") from None

    class Dumper(yaml.SafeDumper):
        def represent_text(self, text: str) -> yaml.Node:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, Dumper.represent_text)
    inner = document.get("spec", {}).get("serveConfigV2")
    if inner is not None:
        document = {**document, "spec": {**document["spec"], "serveConfigV2": as_yaml(inner)}}
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, width=120))


def _described(settings: Settings, job: DeployJob) -> dict[str, Any]:
    if job.kind == "serve":
        return serve_config(settings, job.scale, os.environ)
    return kuberay_manifest(settings, job.scale, job.image or default_image(), os.environ)


def _write(text: str, place: Path | None) -> None:
    if place is None:
        click.echo(text, nl=False)
        return
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{place} cannot be written: {error.strerror}") from error
    click.echo(f"{place} written", err=True)


def _start(settings: Settings, job: DeployJob) -> int:
    prepare(job.address)
    try:
        from anydim.deploy.ray_run import running_service
    except ModuleNotFoundError as error:
        raise MissingExtra(f"Ray Serve needs a package ({error.name}): pip install 'anydim[ray]'") from None
    server = settings.server
    if not (is_loopback(server.host) or server.api_key or server.api_key_file):
        click.echo("Warning: anyone who reaches the cluster's proxies may use them; set --api-key-file", err=True)
    with running_service(settings, job.scale, job.address) as port:
        address = address_to_open(server.host, port, server.tls_cert is not None)
        click.echo(f"Server running on {address}")
        if job.address == LOCAL:
            click.echo("Ctrl-C ends it.")
            threading.Event().wait()
        click.echo(f"It goes on without this command, as the application {NAME}: `serve status`, `serve shutdown`")
    return 0
