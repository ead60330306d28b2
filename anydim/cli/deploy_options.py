"""Deploy options: the command line of `anydim deploy ray`. It knows click and the words of the command; no Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from anydim.cli.options import CONTEXT, SettingCommand, serve_settings, setting_options
from anydim.deploy.scaling import Scale

_EXAMPLES: Final = """\
Examples:
  anydim deploy ray --address local --gpus 0
  anydim deploy ray Qwen/Qwen3-Embedding-4B --max-replicas 8 --host 0.0.0.0 --api-key-file keys.txt
  anydim deploy ray Qwen/Qwen3-Embedding-4B --print serve -o serve.yaml && serve deploy serve.yaml
  anydim deploy ray Qwen/Qwen3-Embedding-4B --max-replicas 8 --print kuberay | kubectl apply -f -

The same command again, with other settings or another model, replaces the replicas one after another; no request is
lost. `serve status` and `serve shutdown` are Ray's own.
"""
_TEXT: Final = """\
Serve on a Ray cluster with Ray Serve.

MODEL and the settings are those of `anydim serve`; each replica has an engine of its own. Replicas come and go with the
tokens that wait in them. With --print nothing is started."""
_HELP: Final = MappingProxyType(
    {
        "min_replicas": "Replicas that always run.",
        "max_replicas": "Most replicas.",
        "target_queued_tokens": "Tokens that may wait in a replica; where more wait there are to be more replicas.",
        "upscale_delay": "Seconds for which more replicas are needed before they are started.",
        "downscale_delay": "Seconds for which fewer are enough before one is stopped.",
        "gpus": "GPUs of a replica; by default as many as its engines use, none where there are none.",
        "cpus": "CPUs of a replica.",
        "ongoing_requests": "Most requests in a replica at once.",
    }
)


def deploy_group(callback: Callable[..., None]) -> click.Group:
    """`anydim deploy` with its one subcommand, whose ``callback`` gets the options by name."""
    group = click.Group("deploy", help="Run anydim on a cluster.", context_settings=dict(CONTEXT))
    group.add_command(_ray_command(callback))
    return group


def scale_of(given: dict[str, Any]) -> Scale:
    """How the service grows; the options are taken out of ``given``."""
    named = {item.name: given.pop(item.name) for item in dataclasses.fields(Scale)}
    return Scale(**{name: value for name, value in named.items() if value is not None})


def _ray_command(callback: Callable[..., None]) -> click.Command:
    own: list[click.Parameter] = [
        click.Argument(["model_argument"], metavar="[MODEL]", required=False),
        click.Option(
            ["--address"],
            default="auto",
            metavar="ADDRESS",
            help="Of the cluster: auto, HOST:PORT of its head, or local for one that ends with the command. "
            "[default auto]",
        ),
        *(_scale_option(item) for item in dataclasses.fields(Scale)),
        click.Option(
            ["--print", "kind"],
            type=click.Choice(["serve", "kuberay"]),
            help="Print a config for `serve deploy`, or a manifest for KubeRay, and start nothing.",
        ),
        click.Option(["-o", "--output"], type=click.Path(path_type=Path), help="Where to write it instead."),
        click.Option(["--image"], metavar="IMAGE", help="Container image for KubeRay, with Ray and anydim in it."),
    ]
    command = SettingCommand("ray", examples=_EXAMPLES, first=("Other",), callback=callback, params=own, help=_TEXT)
    return setting_options(serve_settings())(command)


def _scale_option(item: dataclasses.Field[Any]) -> click.Option:
    is_whole = item.type == "int"
    least = 0 if item.name in ("min_replicas", "upscale_delay", "downscale_delay", "gpus", "cpus") else 1
    shown = "" if item.default is None else f" [default {item.default:g}]"
    return click.Option(
        ["--" + item.name.replace("_", "-")],
        type=click.IntRange(least) if is_whole else click.FloatRange(least),
        metavar="N" if is_whole or item.name in ("gpus", "cpus") else "S",
        help=_HELP[item.name] + shown,
    )
