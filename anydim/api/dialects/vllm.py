"""vLLM's dialect: POST /score, /pooling, /tokenize and /detokenize. Its /rerank is in rerank.py.

It knows vLLM's fields and defaults: texts that are too long are refused unless truncate_prompt_tokens says otherwise,
and scores are what the model's folder asks for.
"""

from __future__ import annotations

import time
from typing import Any, Final, cast

from starlette.requests import Request
from starlette.responses import Response

from anydim.api.dialects.extensions import asked
from anydim.api.dialects.inputs import list_of, truncation
from anydim.api.dialects.openai_fields import Usage
from anydim.api.dialects.vllm_fields import (
    VllmDetokenizeRequest,
    VllmDetokenizeResponse,
    VllmPooled,
    VllmPoolingRequest,
    VllmPoolingResponse,
    VllmScore,
    VllmScoreRequest,
    VllmScoreResponse,
    VllmTokenizeRequest,
    VllmTokenizeResponse,
)
from anydim.api.operations import Operation
from anydim.api.service import Job, Service, json_response, new_id
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer, json_base64, json_numbers
from anydim.api.waiting import in_thread_if
from anydim.errors import InvalidRequest
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, ScoreRequest, Truncate
from anydim.types import Terms

_EACH: Final = "token_embed"


class VllmRoutes:
    """vLLM's routes."""

    def __init__(self, service: Service) -> None:
        """Serve the models of a service."""
        self._service = service
        self._score = service.decoder(VllmScoreRequest)
        self._pooling = service.decoder(VllmPoolingRequest)
        self._tokenize = service.decoder(VllmTokenizeRequest)
        self._detokenize = service.decoder(VllmDetokenizeRequest)

    def operations(self) -> list[Operation]:
        """The routes that are vLLM's own."""
        pair = {"text_1": "What is the capital of China?", "text_2": ["It is Beijing.", "Gravity is a force."]}
        rows: list[tuple[str, str, str, Any, Any, Any, Any]] = [
            ("/score", "score", "Score pairs (vLLM).", self.score, VllmScoreRequest, VllmScoreResponse, pair),
            ("/v1/score", "score_v1", "Score pairs (vLLM).", self.score, VllmScoreRequest, VllmScoreResponse, pair),
            (
                "/pooling",
                "pooling",
                "Embed texts, or classify them (vLLM).",
                self.pooling,
                VllmPoolingRequest,
                VllmPoolingResponse,
                {"input": ["first text", "second text"]},
            ),
            (
                "/detokenize",
                "detokenize",
                "Token ids to text (vLLM).",
                self.detokenize,
                VllmDetokenizeRequest,
                VllmDetokenizeResponse,
                {"tokens": [1, 2]},
            ),
        ]
        return [
            Operation(
                path=path,
                name=name,
                summary=summary,
                dialect=Dialect.VLLM,
                handler=handler,
                body=body,
                answer=answer,
                example=example,
            )
            for path, name, summary, handler, body, answer, example in rows
        ]

    async def score(self, request: Request) -> Response:
        """POST /score."""
        _, answer = await self._service.run(request, self._prepare_score)
        return json_response(
            VllmScoreResponse(
                id=new_id("score-"),
                created=int(time.time()),
                model=answer.model,
                data=[VllmScore(index=place, score=score) for place, score in enumerate(answer.scores)],
                usage=_usage(answer),
            )
        )

    async def pooling(self, request: Request) -> Response:
        """POST /pooling."""
        job, answer = await self._service.run(request, self._prepare_pooling)
        is_large = answer.items[0].each_token
        return await in_thread_if(is_large, _pooled, answer, job.wanted.encoding_format == "base64")

    async def tokenize_of(self, request: Request, body: bytes) -> Response:
        """/tokenize with `prompt`."""
        return json_response(await in_thread_if(True, self._tokens, body))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        body = await self._service.read(request)
        return json_response(await in_thread_if(True, self._text, body))

    def _prepare_score(self, request: Request, body: bytes) -> Job[VllmScoreRequest]:
        wanted = self._score.decode(body)
        first = _side("text_1", wanted.text_1, wanted.queries, wanted.data_1)
        second = _side("text_2", wanted.text_2, wanted.documents, wanted.data_2)
        score = ScoreRequest(
            queries=first,
            documents=second,
            instruction=wanted.instruction,
            truncate=_truncate(wanted.truncate_prompt_tokens),
            squash=wanted.use_activation,
            field="text_2",
            terms=_terms(request, wanted),
        )
        return self._service.rerank(wanted, wanted.model, score)

    def _prepare_pooling(self, request: Request, body: bytes) -> Job[VllmPoolingRequest]:
        wanted = self._pooling.decode(body)
        served = self._service.models.find(wanted.model)
        embeds = isinstance(served.intake, Intake)
        tasks = ("embed", _EACH) if embeds else ("classify", "score")
        if wanted.task is not None and wanted.task not in tasks:
            raise InvalidRequest(f"task must be {' or '.join(tasks)} for {served.names[0]}", "task")
        texts = list_of(wanted.input, "input")
        truncate = truncation(wanted.truncate, _truncate(wanted.truncate_prompt_tokens))
        terms = _terms(request, wanted)
        if embeds:
            embed = EmbedRequest(
                inputs=texts,
                dimensions=wanted.dimensions,
                normalize=(wanted.normalize if wanted.use_activation is None else wanted.use_activation) is not False,
                truncate=truncate,
                terms=terms,
                each_token=wanted.task == _EACH,
                **asked(wanted),
            )
            return self._service.embed(wanted, wanted.model, embed)
        if texts and not isinstance(texts[0], str):
            raise InvalidRequest("a classifier reads texts, not token ids", "input")
        _, intake = self._service.models.scorer(wanted.model)
        score = ScoreRequest(
            queries=None,
            documents=cast(list[str], texts),
            truncate=truncate,
            squash=wanted.use_activation is not False,
            field="input",
            terms=terms,
        )
        return Job(wanted, served, intake.prepare(score))

    def _tokens(self, body: bytes) -> VllmTokenizeResponse:
        wanted = self._tokenize.decode(body)
        served = self._service.models.find(wanted.model)
        special = wanted.add_special_tokens is not False
        pieces = self._service.vocabulary(served).pieces(wanted.prompt, special, "prompt")
        return VllmTokenizeResponse(
            count=len(pieces),
            max_model_len=served.max_tokens,
            tokens=[piece.id for piece in pieces],
            token_strs=[piece.text for piece in pieces] if wanted.return_token_strs else None,
        )

    def _text(self, body: bytes) -> VllmDetokenizeResponse:
        wanted = self._detokenize.decode(body)
        vocabulary = self._service.vocabulary(self._service.models.find(wanted.model))
        return VllmDetokenizeResponse(prompt=vocabulary.decode(wanted.tokens, False, "tokens"))


def _pooled(answer: Answer, base64: bool) -> Response:
    write = json_base64 if base64 else json_numbers
    # Raw JSON stands for the list or the string that the schema promises.
    rows = [
        VllmPooled(index=place, data=cast(str, write(output.values))) for place, output in enumerate(answer.outputs)
    ]
    return json_response(
        VllmPoolingResponse(
            id=new_id("pool-"), created=int(time.time()), model=answer.model, data=rows, usage=_usage(answer)
        )
    )


def _side(field: str, *given: str | list[str] | None) -> list[str]:
    """The texts of one side, under whichever of its names they came."""
    found = [texts for texts in given if texts is not None]
    if len(found) != 1:
        why = f"Missing required parameter: '{field}'" if not found else f"{field} is given under several names"
        raise InvalidRequest(why, field)
    return [found[0]] if isinstance(found[0], str) else found[0]


def _truncate(tokens: int | None) -> Truncate:
    if tokens is None:
        return Truncate.NONE
    if tokens != -1:
        raise InvalidRequest(
            "truncate_prompt_tokens must be -1, which cuts at the model's limit", "truncate_prompt_tokens"
        )
    return Truncate.END


def _terms(request: Request, wanted: VllmScoreRequest | VllmPoolingRequest) -> Terms:
    """Terms; vLLM's numbers of priority are not ours, and count as normal."""
    priority = wanted.priority if isinstance(wanted.priority, str) else None
    return terms_of(request, priority, wanted.timeout)


def _usage(answer: Answer) -> Usage:
    return Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens)
