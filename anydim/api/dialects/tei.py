"""text-embeddings-inference's dialect: /embed, /embed_all, /predict, /similarity, /decode, its bodies at /rerank and
/tokenize, and POST / for the clients of the hub's inference interface.

It knows TEI's fields and defaults: bodies name no model, and texts that are too long are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.dialects.extensions import asked
from anydim.api.dialects.inputs import list_of, truncation
from anydim.api.dialects.tei_fields import (
    TeiDecodeRequest,
    TeiEmbedRequest,
    TeiPrediction,
    TeiPredictRequest,
    TeiRank,
    TeiRerankRequest,
    TeiSimilarityParameters,
    TeiSimilarityRequest,
    TeiToken,
    TeiTokenizeRequest,
)
from anydim.api.operations import Operation
from anydim.api.service import Job, Service, has_any, json_response, speaks
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer, json_numbers
from anydim.api.waiting import in_thread_if
from anydim.errors import InvalidRequest, NoInput
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, ScoreRequest, Truncate


class TeiRoutes:
    """TEI's routes for the default models of a service."""

    def __init__(self, service: Service) -> None:
        """Serve the models of a service."""
        self._service = service
        self._embed = service.decoder(TeiEmbedRequest)
        self._rerank = service.decoder(TeiRerankRequest)
        self._predict = service.decoder(TeiPredictRequest)
        self._similarity = service.decoder(TeiSimilarityRequest)
        self._tokenize = service.decoder(TeiTokenizeRequest)
        self._decode = service.decoder(TeiDecodeRequest)

    def operations(self) -> list[Operation]:
        """The routes that are TEI's own."""
        sentences = {"source_sentence": "a text", "sentences": ["another text"]}
        rows: list[tuple[str, str, Any, Any, Any, Any]] = [
            ("embed", "Embed texts (TEI).", self.embed, TeiEmbedRequest, list[list[float]], {"inputs": "a text"}),
            (
                "embed_all",
                "A vector for each token of texts (TEI).",
                self.embed_all,
                TeiEmbedRequest,
                list[list[list[float]]],
                {"inputs": "a text"},
            ),
            (
                "predict",
                "Classify texts or pairs (TEI).",
                self.predict,
                TeiPredictRequest,
                list[TeiPrediction | list[TeiPrediction]],
                {"inputs": "a text"},
            ),
            (
                "similarity",
                "Compare sentences by the cosine of their vectors (TEI).",
                self.similarity,
                TeiSimilarityRequest,
                list[float],
                {"inputs": sentences},
            ),
            ("decode", "Token ids to text (TEI).", self.decode, TeiDecodeRequest, list[str], {"ids": [1, 2]}),
        ]
        return [
            Operation(
                path=f"/{name}",
                name=f"tei_{name}",
                summary=summary,
                dialect=Dialect.TEI,
                handler=handler,
                body=body,
                answer=answer,
                example=example,
            )
            for name, summary, handler, body, answer, example in rows
        ]

    async def embed(self, request: Request) -> Response:
        """POST /embed."""
        return await self._embed_of(request, None)

    async def embed_all(self, request: Request) -> Response:
        """POST /embed_all: the states that leave the last layer, special tokens' included."""
        _, answer = await self._service.run(request, self._prepare_embed_all)
        return await in_thread_if(True, _matrices, answer)

    async def predict(self, request: Request) -> Response:
        """POST /predict."""
        return await self._predict_of(request, None)

    async def similarity(self, request: Request) -> Response:
        """POST /similarity."""
        return await self._similarity_of(request, None)

    async def root(self, request: Request) -> Response:
        """POST /: what the body asks for, else what the first model does."""
        speaks(request, Dialect.TEI)
        body = await self._service.read(request)
        if has_any(body, ["texts"]):
            return await self.rerank_of(request, body)
        if has_any(body, ["inputs"]) and b'"source_sentence"' in body:
            return await self._similarity_of(request, body)
        if isinstance(self._service.models.first.intake, Intake):
            return await self._embed_of(request, body)
        return await self._predict_of(request, body, nested=True)  # the hub's client takes the first of a list of lists

    async def rerank_of(self, request: Request, body: bytes) -> Response:
        """/rerank with `texts`."""
        job, answer = await self._service.run(request, self._prepare_rerank, body)
        scores = answer.scores
        return json_response(
            [
                TeiRank(
                    index=place, score=scores[place], text=job.wanted.texts[place] if job.wanted.return_text else UNSET
                )
                for place in answer.order(None)
            ]
        )

    async def tokenize_of(self, request: Request, body: bytes) -> Response:
        """/tokenize with `inputs`."""
        return json_response(await in_thread_if(True, self._tokens, body))

    async def decode(self, request: Request) -> Response:
        """POST /decode."""
        body = await self._service.read(request)
        return json_response(await in_thread_if(True, self._texts, body))

    async def _embed_of(self, request: Request, body: bytes | None) -> Response:
        _, answer = await self._service.run(request, self._prepare_embed, body)
        return json_response([json_numbers(output.values) for output in answer.outputs])

    async def _similarity_of(self, request: Request, body: bytes | None) -> Response:
        _, answer = await self._service.run(request, self._prepare_similarity, body)
        source, *others = (np.asarray(output.values, np.float64) for output in answer.outputs)
        return json_response([float(source @ other) for other in others])

    async def _predict_of(self, request: Request, body: bytes | None, nested: bool = False) -> Response:
        job, answer = await self._service.run(request, self._prepare_predict, body)
        _, intake = self._service.models.scorer()
        rows = [_predictions(answer, place, intake.scorer.labels) for place in range(len(answer.outputs))]
        is_batch = not isinstance(job.wanted.inputs, str) and isinstance(job.wanted.inputs[0], list)
        return json_response(rows if is_batch or nested else rows[0])

    def _prepare_embed(self, request: Request, body: bytes) -> Job[TeiEmbedRequest]:
        wanted = self._embed.decode(body)
        return self._service.embed(wanted, None, _embed_request(request, wanted), "inputs")

    def _prepare_embed_all(self, request: Request, body: bytes) -> Job[TeiEmbedRequest]:
        wanted = self._embed.decode(body)
        embed = replace(_embed_request(request, wanted), normalize=wanted.normalize is True, each_token=True)
        return self._service.embed(wanted, None, embed, "inputs")

    def _prepare_similarity(self, request: Request, body: bytes) -> Job[TeiSimilarityRequest]:
        wanted = self._similarity.decode(body)
        if not wanted.inputs.sentences:
            raise NoInput("inputs.sentences must hold at least one text", "inputs.sentences")
        how = wanted.parameters or TeiSimilarityParameters()
        embed = EmbedRequest(
            inputs=[wanted.inputs.source_sentence, *wanted.inputs.sentences],
            dimensions=self._service.models.embedder()[1].rule.width,
            prompt_name=how.prompt_name,
            truncate=_truncate(how),
            terms=terms_of(request),
        )
        return self._service.embed(wanted, None, embed)

    def _prepare_rerank(self, request: Request, body: bytes) -> Job[TeiRerankRequest]:
        wanted = self._rerank.decode(body)
        score = ScoreRequest(
            queries=[wanted.query],
            documents=wanted.texts,
            instruction=wanted.instruction,
            truncate=_truncate(wanted),
            squash=not wanted.raw_scores,
            field="texts",
            terms=terms_of(request),
        )
        return self._service.rerank(wanted, None, score)

    def _prepare_predict(self, request: Request, body: bytes) -> Job[TeiPredictRequest]:
        wanted = self._predict.decode(body)
        served, intake = self._service.models.scorer()
        queries, documents = _sides(wanted.inputs)
        score = ScoreRequest(
            queries=queries,
            documents=documents,
            truncate=_truncate(wanted),
            squash=not wanted.raw_scores,
            field="inputs",
            terms=terms_of(request),
        )
        return Job(wanted, served, intake.prepare(score), "inputs")

    def _tokens(self, body: bytes) -> list[list[TeiToken]]:
        wanted = self._tokenize.decode(body)
        served = self._service.models.first
        vocabulary = self._service.vocabulary(served)
        prompt = _prompt(served.intake, wanted.prompt_name)
        texts = [wanted.inputs] if isinstance(wanted.inputs, str) else wanted.inputs
        return [
            [
                TeiToken(id=piece.id, text=piece.text, special=piece.is_special, start=piece.start, stop=piece.stop)
                for piece in vocabulary.pieces(prompt + text, wanted.add_special_tokens is not False, "inputs")
            ]
            for text in texts
        ]

    def _texts(self, body: bytes) -> list[str]:
        wanted = self._decode.decode(body)
        vocabulary = self._service.vocabulary(self._service.models.first)
        rows = list_of(wanted.ids, "ids")
        return [vocabulary.decode(row, wanted.skip_special_tokens is not False, "ids") for row in rows]  # type: ignore[arg-type]


def _embed_request(request: Request, wanted: TeiEmbedRequest) -> EmbedRequest:
    return EmbedRequest(
        inputs=list_of(wanted.inputs, "inputs"),
        dimensions=wanted.dimensions,
        normalize=wanted.normalize is not False,
        truncate=_truncate(wanted),
        terms=terms_of(request),
        **asked(wanted),
    )


def _matrices(answer: Answer) -> Response:
    return json_response([json_numbers(output.values) for output in answer.outputs])


def _truncate(wanted: Any) -> Truncate:
    if isinstance(wanted.truncate, str) or not wanted.truncate:
        return truncation(wanted.truncate)
    return Truncate.START if (wanted.truncation_direction or "").lower() == "left" else Truncate.END


def _sides(inputs: str | list[Any]) -> tuple[list[str] | None, list[str]]:
    """Queries, where there are pairs, and documents.

    Raises:
        InvalidRequest: an entry is neither a text nor a pair, or both kinds are mixed.
    """
    rows = [[inputs]] if isinstance(inputs, str) else inputs
    if rows and all(isinstance(row, str) for row in rows):
        rows = [rows]  # a list of texts is one entry: a text or a pair
    if not rows:
        raise NoInput("inputs must hold at least one text", "inputs")
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) not in (1, 2):
            raise InvalidRequest(f"inputs[{place}] must be a list of one text or two", f"inputs[{place}]")
    if len({len(row) for row in rows}) > 1:
        raise InvalidRequest("inputs mixes texts and pairs of texts; send them apart", "inputs")
    return ([row[0] for row in rows] if len(rows[0]) == 2 else None), [row[-1] for row in rows]


def _predictions(answer: Answer, place: int, labels: tuple[str, ...]) -> list[TeiPrediction]:
    """The labels of one text, the most likely first."""
    scores = answer.outputs[place].values.tolist()
    order = sorted(range(len(labels)), key=lambda label: -scores[label])
    return [TeiPrediction(score=scores[label], label=labels[label]) for label in order]


def _prompt(intake: Any, name: str | None) -> str:
    if name is None:
        return ""
    prompts = intake.card.prompts
    if name not in prompts:
        raise InvalidRequest(f"{intake.card.name} has no prompt named {name[:60]!r}", "prompt_name")
    return str(prompts[name])
