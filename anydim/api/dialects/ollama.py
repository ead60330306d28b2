"""Ollama's dialect: POST /api/embed and /api/embeddings, and what its clients ask beside: tags, ps, show, version.

It knows Ollama's fields and defaults: names may end in `:latest`, and texts that are too long are cut at their end.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from anydim.api.dialects.extensions import asked
from anydim.api.dialects.inputs import truncation
from anydim.api.dialects.ollama_fields import (
    OllamaDetails,
    OllamaEmbeddingsRequest,
    OllamaEmbeddingsResponse,
    OllamaEmbedRequest,
    OllamaEmbedResponse,
    OllamaModel,
    OllamaModels,
    OllamaShowRequest,
    OllamaShowResponse,
    OllamaVersion,
)
from anydim.api.models import ServedModel
from anydim.api.operations import Operation
from anydim.api.service import Job, Service, json_response
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import json_numbers
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, Truncate
from anydim.version import VERSION

_TAG: Final = ":latest"
_FOREVER: Final = "9999-12-31T23:59:59Z"


class OllamaRoutes:
    """Ollama's routes."""

    def __init__(self, service: Service) -> None:
        """Serve the models of a service."""
        self._service = service
        self._embed = service.decoder(OllamaEmbedRequest)
        self._embeddings = service.decoder(OllamaEmbeddingsRequest)
        self._show = service.decoder(OllamaShowRequest)

    def operations(self) -> list[Operation]:
        """The routes."""
        rows: list[tuple[str, str, str, Any, Any, Any, Any]] = [
            ("POST", "embed", "Embed texts", self.embed, OllamaEmbedRequest, OllamaEmbedResponse, {"input": "a text"}),
            (
                "POST",
                "embeddings",
                "Embed one text",
                self.embeddings,
                OllamaEmbeddingsRequest,
                OllamaEmbeddingsResponse,
                {"prompt": "a text"},
            ),
            ("POST", "show", "What a model is", self.show, OllamaShowRequest, OllamaShowResponse, {}),
            ("GET", "tags", "The served models", self.tags, None, OllamaModels, None),
            ("GET", "ps", "The loaded models", self.loaded, None, OllamaModels, None),
            ("GET", "version", "The server's version", self.version, None, OllamaVersion, None),
        ]
        return [
            Operation(
                path=f"/api/{name}",
                method=method,
                name=f"ollama_{name}",
                summary=f"{summary} (Ollama).",
                dialect=Dialect.OLLAMA,
                handler=handler,
                body=body,
                answer=answer,
                example=example,
                only=None if method == "POST" else (401, 405),
            )
            for method, name, summary, handler, body, answer, example in rows
        ]

    async def embed(self, request: Request) -> Response:
        """POST /api/embed."""
        began = time.perf_counter_ns()
        job, answer = await self._service.run(request, self._prepare)
        vectors = [json_numbers(output.values) for output in answer.outputs]
        return json_response(
            OllamaEmbedResponse(
                model=job.wanted.model or answer.model,
                embeddings=vectors,
                total_duration=time.perf_counter_ns() - began,
                prompt_eval_count=answer.tokens,
            )
        )

    async def embeddings(self, request: Request) -> Response:
        """POST /api/embeddings."""
        _, answer = await self._service.run(request, self._prepare_one)
        return json_response({"embedding": json_numbers(answer.outputs[0].values)})

    async def tags(self, request: Request) -> Response:
        """GET /api/tags."""
        return json_response(OllamaModels(models=[_model(served) for served in self._service.models]))

    async def loaded(self, request: Request) -> Response:
        """GET /api/ps."""
        models = [_model(served) for served in self._service.models]
        for model in models:
            model.expires_at, model.size_vram = _FOREVER, 0
        return json_response(OllamaModels(models=models))

    async def version(self, request: Request) -> Response:
        """GET /api/version."""
        return json_response(OllamaVersion(version=VERSION))

    async def show(self, request: Request) -> Response:
        """POST /api/show."""
        wanted = self._show.decode(await self._service.read(request))
        served = self._service.models.find(_untagged(wanted.model or wanted.name))
        card, family = served.intake.card, served.intake.card.family.value
        facts = {f"{family}.embedding_length": card.width, f"{family}.context_length": served.max_tokens}
        return json_response(
            OllamaShowResponse(
                modified_at=_stamp(served),
                details=_details(served),
                model_info={"general.architecture": family}
                | {f"{family}.{name}": fact for name, fact in facts.items()},
                capabilities=["embedding"] if isinstance(served.intake, Intake) else [],
            )
        )

    def _prepare(self, request: Request, body: bytes) -> Job[OllamaEmbedRequest]:
        wanted = self._embed.decode(body)
        embed = EmbedRequest(
            inputs=[wanted.input] if isinstance(wanted.input, str) else wanted.input,
            dimensions=wanted.dimensions,
            truncate=truncation(wanted.truncate, Truncate.END),
            terms=terms_of(request),
            **asked(wanted),
        )
        return self._service.embed(wanted, _untagged(wanted.model), embed)

    def _prepare_one(self, request: Request, body: bytes) -> Job[OllamaEmbeddingsRequest]:
        wanted = self._embeddings.decode(body)
        embed = EmbedRequest(inputs=[wanted.prompt], truncate=Truncate.END, terms=terms_of(request), **asked(wanted))
        return self._service.embed(wanted, _untagged(wanted.model), embed)


def _untagged(name: str | None) -> str | None:
    return None if name is None else name.removesuffix(_TAG)


def _model(served: ServedModel) -> OllamaModel:
    name = served.names[0] + _TAG
    return OllamaModel(name=name, model=name, modified_at=_stamp(served), details=_details(served))


def _details(served: ServedModel) -> OllamaDetails:
    family = served.intake.card.family.value
    return OllamaDetails(family=family, families=[family])


def _stamp(served: ServedModel) -> str:
    return datetime.fromtimestamp(served.created, UTC).isoformat()
