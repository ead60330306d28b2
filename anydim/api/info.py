"""GET /info: what is served and within which limits, in the shape of text-embeddings-inference, with fields of ours.

It knows the model's card, the settings of the server and what the engine says of itself.
Source: text-embeddings-inference's OpenAPI document, `Info`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.models import Models
from anydim.api.operations import Operation
from anydim.api.status import Dialect
from anydim.config import ServerSettings
from anydim.engine.handle import EngineHandle
from anydim.intake.intake import Intake
from anydim.intake.scoring import ScoreIntake
from anydim.types import Pooling
from anydim.version import VERSION

_UNBOUNDED: Final = (1 << 31) - 1  # the shape wants a number
_SNAPSHOTS: Final = "snapshots"


class EngineInfo(msgspec.Struct, kw_only=True):
    """One engine and whether it takes requests."""

    device: Annotated[str | None, Meta(description="Where it runs; null until it has started.")]
    ready: Annotated[bool, Meta(description="Whether it takes requests.")]
    reason: Annotated[str, Meta(description="Why it does not.")] = ""


class Info(msgspec.Struct, kw_only=True):
    """What is served."""

    model_id: str
    model_sha: Annotated[str | None, Meta(description="The commit on the hub; null for a local folder.")]
    model_dtype: Annotated[str, Meta(description="Precision of the weights; auto until the engine has started.")]
    model_type: Annotated[dict[str, Any], Meta(description='Such as {"embedding": {"pooling": "mean"}}.')]
    max_concurrent_requests: Annotated[int, Meta(description="2147483647: the queue is bounded in tokens.")] = (
        _UNBOUNDED
    )
    max_input_length: Annotated[int, Meta(description="The longest input in tokens, special ones included.")]
    max_batch_tokens: Annotated[int, Meta(description="Most tokens of a forward; 0 until the engine has started.")]
    max_batch_requests: int | None = None
    max_client_batch_size: Annotated[int, Meta(description="2147483647: any; batches are split inside.")] = _UNBOUNDED
    auto_truncate: Annotated[bool, Meta(description="Whether long texts are cut unless a request says so.")] = False
    tokenization_workers: Annotated[int, Meta(description="Front-end processes.")]
    version: Annotated[str, Meta(description="anydim's version.")] = VERSION
    sha: str | None = None
    docker_label: str | None = None
    device: Annotated[str | None, Meta(description="Where the engine runs; null until it has started.")]
    engines: Annotated[list[EngineInfo], Meta(description="The engines, in the order of their devices (`--dp`).")]
    names: Annotated[list[str], Meta(description="The names that the served models answer to in full.")]
    width: Annotated[int | None, Meta(description="Components of the full vector.")] = None
    dimensions: Annotated[str | None, Meta(description="The allowed dimensions in words.")] = None
    default_dim: Annotated[int | None, Meta(description="The dimension of requests that name none.")] = None
    prompts: Annotated[list[str], Meta(description="The values of `prompt_name`.")]


class InfoRoutes:
    """The route that tells of the first model."""

    def __init__(self, models: Models, engine: EngineHandle, settings: ServerSettings) -> None:
        """Tell of the first of several models, and of the engines."""
        self._served = models.first
        self._names = models.names
        self._engine = engine
        self._settings = settings

    def operations(self) -> list[Operation]:
        """The one route."""
        return [
            Operation(
                path="/info",
                method="GET",
                name="info",
                summary="What is served and within which limits (TEI).",
                dialect=Dialect.TEI,
                handler=self.info,
                answer=Info,
                only=(401, 405),
            )
        ]

    async def info(self, request: Request) -> Response:
        """GET /info."""
        intake, facts = self._served.intake, self._engine.facts()
        found = Info(
            model_id=self._served.id,
            model_sha=_commit(intake.card.folder),
            model_dtype=facts.dtype if facts else "auto",
            model_type=_model_type(intake),
            max_input_length=intake.max_tokens,
            max_batch_tokens=facts.batch_tokens if facts else 0,
            tokenization_workers=self._settings.http_workers,
            device=facts.device if facts else None,
            engines=[_engine(engine) for engine in self._engine.engines()],
            names=self._names,
            prompts=sorted(intake.card.prompts),
        )
        if isinstance(intake, Intake):
            found.width, found.dimensions, found.default_dim = (
                intake.rule.width,
                intake.rule.allowed,
                intake.rule.default,
            )
        return Response(msgspec.json.encode(found), media_type="application/json")


def _engine(engine: EngineHandle) -> EngineInfo:
    facts, health = engine.facts(), engine.health()
    return EngineInfo(device=facts.device if facts else None, ready=health.ready, reason=health.reason)


def _model_type(intake: Intake | ScoreIntake) -> dict[str, Any]:
    if isinstance(intake, Intake):
        return {"embedding": {"pooling": _pooling(intake.card.pooling)}}
    labels = {str(place): name for place, name in enumerate(intake.scorer.labels)}
    kind = "reranker" if intake.scorer.is_reranker else "classifier"
    return {kind: {"id2label": labels, "label2id": {name: int(place) for place, name in labels.items()}}}


def _pooling(pooling: Pooling) -> str:
    return "last_token" if pooling is Pooling.LAST else str(pooling)


def _commit(folder: Path) -> str | None:
    """The commit of a folder in the hub's cache, which is named after it."""
    return folder.name if folder.parent.name == _SNAPSHOTS else None
