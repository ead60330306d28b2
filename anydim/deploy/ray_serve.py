"""Ray Serve: the application of `anydim serve` as a deployment whose replicas each supervise an engine.

Serve's proxies speak HTTP and choose a replica; a replica answers with the same routes, keys and settings as a server
of its own. It is healthy while its engine is ready, tells how many tokens wait there, and drains when it is replaced.
It knows Serve and the order of starting; how many replicas there are to be is said in scaling.py.

Needs the extra ray. In a Serve config: ``import_path: anydim.deploy.ray_serve:app``, settings under ``args``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from starlette.applications import Starlette

from anydim.api.app import create_app
from anydim.api.auth import KeyRing, SealedKeys
from anydim.cli.listen import own_hosts
from anydim.cli.served import find_cards, serve_models
from anydim.config import Settings
from anydim.deploy.scaling import BUSY_SHARE, QUEUED_TOKENS, BusyClock, Scale
from anydim.deploy.service import NAME, deployment_options, settings_of
from anydim.engine.crew import Crew
from anydim.errors import Unavailable
from anydim.logs import configure_logs
from anydim.retrieval.routes import search_entrance


def app(args: Mapping[str, Any]) -> Any:
    """The application of a Serve config; runs on a machine of the cluster.

    Args:
        args: settings by name, as in docs/config.md; ``model`` may be a list; ``config`` is a TOML file there. ANYDIM_*
            variables of the cluster's machines count too, keys among them.

    Raises:
        ConfigError: a setting is unknown or does not fit.
    """
    return application(settings_of(args, os.environ), Scale())


def application(settings: Settings, scale: Scale) -> Any:
    """The application with settings that are known already; their keys go on as hashes."""
    keys = KeyRing.of(settings.server)
    sealed = None if keys is None else keys.sealed()
    settings = dataclasses.replace(settings, server=dataclasses.replace(settings.server, api_key=()))
    return _deployment(settings, scale).bind(settings, sealed)


def _deployment(settings: Settings, scale: Scale) -> Any:
    options = deployment_options(settings, scale)
    scaling = options.pop("autoscaling_config")
    config = AutoscalingConfig(**{**scaling, "policy": AutoscalingPolicy(**scaling["policy"])})
    return serve.deployment(name=NAME, autoscaling_config=config, **options)(serve.ingress()(Replica))


class Replica:
    """The engines of one replica and the application before them."""

    async def __init__(self, settings: Settings, keys: SealedKeys | None) -> None:  # type: ignore[misc]  # Serve awaits
        """Load, and wait until the engine is warm: Serve sends nothing before that.

        Raises:
            ConfigError, ModelError, ComputeFailed: as `anydim serve`.
        """
        configure_logs(settings.server.log_json)
        self._settings = settings
        self._keys = None if keys is None else KeyRing.unsealed(keys)
        cards = find_cards(settings, show_progress=False)
        self._models = serve_models(cards, settings)
        self._crew = Crew(
            cards[0],
            settings.model,
            settings.engine,
            show_progress=False,
            log_json=settings.server.log_json,
            others=list(zip(cards[1:], settings.others, strict=True)),
        )
        self._busy = BusyClock()
        await self._crew.start()
        try:
            await self._crew.wait_ready()
        except BaseException:
            await self._crew.stop()
            raise

    def __serve_build_asgi_app__(self) -> Starlette:
        server = self._settings.server
        return create_app(
            self._models,
            self._crew.handle,
            server,
            keys=self._keys,
            hosts=own_hosts(server),
            entrances=search_entrance(self._models, self._settings.index),
        )

    async def check_health(self) -> None:
        """What /ready says; Serve replaces a replica that is not healthy for a while.

        Raises:
            Unavailable: the engine is dead, stuck or being started again.
        """
        health = self._crew.handle.health()
        if not (health.alive and health.ready):
            raise Unavailable(health.reason or "the engine is not ready")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The tokens that wait, and the share of the time in which the device had work since the last call."""
        handle = self._crew.handle
        counts = handle.counts()
        if counts is None:
            return {QUEUED_TOKENS: 0.0, BUSY_SHARE: 0.0}
        share = self._busy.share(counts.busy_seconds / len(handle.engines()), counts.uptime_seconds)
        return {QUEUED_TOKENS: float(counts.queued_tokens), BUSY_SHARE: share}

    async def __del__(self) -> None:
        # Serve calls this once everyone is answered, and Python once more.
        with contextlib.suppress(AttributeError):
            crew = self._crew
            del self._crew
            await crew.stop()
