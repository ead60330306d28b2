"""Pairs: a query and its documents -> token ids, as the two kinds of rerankers read them, cut to the model's limit.

PromptedPairs puts both into Qwen3's prompt as one text; TextPairs gives cross-encoders two texts with special tokens
around them. Special tokens spelled out by a user stay plain text in both. They know tokens; they know no HTTP.

Source: the Qwen3-Reranker model card; tokenizers, utils/truncation.rs, for how two texts share a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from anydim.errors import ConfigError, InvalidRequest, ModelError, TooLong
from anydim.intake.encode import load_tokenizer, read_document
from anydim.intake.plain_text import PlainTokenizer
from anydim.intake.request import ScoreRequest, Truncate
from anydim.intake.rerank_prompt import BEFORE, BEHIND, RerankPrompt
from anydim.types import Int32Array

_CHARACTERS: Final = 16  # a token; a text of more is read in parts
_MARGIN: Final = 64  # tokens near a cut may differ from those of the whole text


class Pairs(Protocol):
    """How one kind of reranker reads pairs."""

    @property
    def is_fast(self) -> bool:
        """Whether fastokens does the work."""
        ...

    def encode(self, request: ScoreRequest, part: slice) -> list[Int32Array]:
        """Ids of the request's pairs in ``part``.

        Raises:
            InvalidRequest: a text cannot be tokenised, or the query leaves no room for a document.
            TooLong: a pair is too long and must not be cut.
        """
        ...


class PromptedPairs:
    """Pairs in Qwen3's prompt: only the document is cut, what stands behind it never."""

    def __init__(self, plain: PlainTokenizer, limit: int, prompt: RerankPrompt, instruction: str | None) -> None:
        """Prepare.

        Args:
            plain: the model's tokenizer without added tokens.
            limit: the longest pair in tokens, the prompt included.
            prompt: how the prompt is built.
            instruction: the default instruction; the prompt's own where None.

        Raises:
            ConfigError: the prompt alone is longer than the limit.
        """
        self._plain = plain
        self._prompt = prompt
        self._instruction = prompt.instruction if instruction is None else instruction
        self._before_T = self._plain.encode_prompt(BEFORE)
        self._behind_T = self._plain.encode_prompt(BEHIND)
        self._limit = limit
        self._room = limit - len(self._before_T) - len(self._behind_T)
        shortest = len(self._plain.encode([self._prompt.head(self._instruction, "")], ["query"])[0])
        if self._room <= shortest:
            least = limit - self._room + shortest + 1
            raise ConfigError(f"--max-input-tokens {limit} leaves no room beside the reranking prompt ({least} tokens)")

    @property
    def is_fast(self) -> bool:
        """See Pairs."""
        return self._plain.is_fast

    def encode(self, request: ScoreRequest, part: slice) -> list[Int32Array]:
        """See Pairs."""
        instruction = self._instruction if request.instruction is None else request.instruction
        heads = [self._prompt.head(instruction, query) for query in request.queries_of(part)]
        documents, fields = request.documents[part], request.document_fields(part)
        long = {place for place, text in enumerate(documents) if len(text) > self._room * _CHARACTERS}
        texts = [
            "" if place in long else f"{head} {document}"
            for place, (head, document) in enumerate(zip(heads, documents, strict=True))
        ]
        encoded = self._plain.encode(texts, fields)
        for place in long:
            encoded[place] = self._read_long(heads[place], documents[place], request.truncate, fields[place])
        return [
            np.concatenate([self._before_T, self._cut(ids_T, head, request, field), self._behind_T])
            for ids_T, head, field in zip(encoded, heads, fields, strict=True)
        ]

    def _read_long(self, head: str, document: str, truncate: Truncate, field: str) -> Int32Array:
        """Read no more of a very long document than it takes to know what survives the cut."""
        size = self._room * _CHARACTERS
        while True:
            part = document[-size:] if truncate is Truncate.START else document[:size]
            [ids_T] = self._plain.encode([f"{head} {part}"], [field])
            if size >= len(document) or len(ids_T) > self._room + _MARGIN:
                return ids_T
            size *= 4

    def _cut(self, ids_T: Int32Array, head: str, request: ScoreRequest, field: str) -> Int32Array:
        """Cut the document's tokens; ids before them stay."""
        most = request.max_document_tokens
        if len(ids_T) <= self._room and (most is None or len(ids_T) <= most):
            return ids_T
        first = len(self._plain.encode([head], ["query"])[0])
        room = self._room if most is None else min(self._room, first + most)
        if len(ids_T) <= room:
            return ids_T
        if request.truncate is Truncate.NONE and len(ids_T) > self._room:
            raise _too_long(field, len(ids_T) + self._limit - self._room, self._limit)
        if first >= self._room:
            raise TooLong(
                f"query and instruction take {first + self._limit - self._room} tokens with the prompt and leave no "
                f"room for a document: the model reads {self._limit} tokens",
                "query",
            )
        if request.truncate is Truncate.START:
            return np.concatenate([ids_T[:first], ids_T[len(ids_T) - (room - first) :]])
        return ids_T[:room]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Special tokens around one text or two, as the tokenizer's post-processor puts them."""

    first: tuple[int, ...]
    middle: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.first) + len(self.middle) + len(self.last)

    def around(self, texts: Sequence[Int32Array]) -> Int32Array:
        parts = [self.first, texts[0], self.last]
        if len(texts) > 1:
            parts[2:2] = [self.middle, texts[1]]
        return np.concatenate([np.asarray(part, np.int32) for part in parts])


class TextPairs:
    """Two texts, or one, with the special tokens of BERT and its like; the longer one is cut first."""

    def __init__(self, file: Path, limit: int, lower_case: bool) -> None:
        """Load the tokenizer.

        Args:
            file: tokenizer.json.
            limit: the longest pair in tokens, the special ones included.
            lower_case: whether texts are put in lower case first.

        Raises:
            ConfigError: the special tokens alone are longer than the limit.
            ModelError: the tokenizer is missing or broken.
        """
        self._plain = PlainTokenizer(file, keep_ordinary=True)
        self._single, self._pair = _frames(file)
        self._limit = limit
        self._lower_case = lower_case
        if limit <= self._pair.size + 1:
            raise ConfigError(f"--max-input-tokens {limit} leaves no room for text beside the special tokens")

    @property
    def is_fast(self) -> bool:
        """See Pairs."""
        return self._plain.is_fast

    def encode(self, request: ScoreRequest, part: slice) -> list[Int32Array]:
        """See Pairs; texts without queries are read alone."""
        fields = request.document_fields(part)
        documents = self._read(request.documents[part], fields)
        if request.queries is None:
            return [
                self._single.around(self._cut([ids_T], self._single, request, field))
                for ids_T, field in zip(documents, fields, strict=True)
            ]
        queries = self._read_queries(request, part)
        return [
            self._pair.around(self._cut([query_T, ids_T], self._pair, request, field))
            for query_T, ids_T, field in zip(queries, documents, fields, strict=True)
        ]

    def _read_queries(self, request: ScoreRequest, part: slice) -> list[Int32Array]:
        """Each query once, however many documents it has."""
        queries = request.queries_of(part)
        distinct = list(dict.fromkeys(queries))
        known = dict(zip(distinct, self._read(distinct, ["query"] * len(distinct)), strict=True))
        return [known[query] for query in queries]

    def _read(self, texts: Sequence[str], fields: Sequence[str]) -> list[Int32Array]:
        return self._plain.encode([text.lower() for text in texts] if self._lower_case else list(texts), fields)

    def _cut(self, texts: list[Int32Array], frame: _Frame, request: ScoreRequest, field: str) -> list[Int32Array]:
        most = request.max_document_tokens
        if most is not None and len(texts[-1]) > most:
            texts[-1] = _shortened(texts[-1], most, request.truncate)
        lengths = [len(ids_T) for ids_T in texts]
        room = self._limit - frame.size
        if sum(lengths) <= room:
            return texts
        if request.truncate is Truncate.NONE:
            raise _too_long(field, sum(lengths) + frame.size, self._limit)
        kept = [room] if len(texts) == 1 else longest_first(lengths[0], lengths[1], room)
        return [_shortened(ids_T, length, request.truncate) for ids_T, length in zip(texts, kept, strict=True)]


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens two texts keep that share ``room``: the longer one gives way, then both take half.

    Source: tokenizers, utils/truncation.rs, LongestFirst.
    """
    short, long = sorted((first, second))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (long, short) if first > second else (short, long)


def _shortened(ids_T: Int32Array, length: int, truncate: Truncate) -> Int32Array:
    return ids_T[max(0, len(ids_T) - length) :] if truncate is Truncate.START else ids_T[:length]


def _too_long(field: str, tokens: int, limit: int) -> TooLong:
    return TooLong(
        f"{field} has {tokens} tokens with its query and prompt, but the model reads {limit} tokens; "
        "shorten it, or ask for it to be cut (truncate end)",
        field,
    )


def _frames(file: Path) -> tuple[_Frame, _Frame]:
    """What the post-processor puts around one text and around two."""
    tokenizer = load_tokenizer(read_document(file), file)
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    single, pair = tokenizer.encode("a").ids, tokenizer.encode("a", "a").ids
    places = [place for place in range(len(pair)) if pair[place : place + len(plain)] == plain]
    start = next((place for place in range(len(single)) if single[place : place + len(plain)] == plain), None)
    if start is None or len(places) != 2 or not plain:
        raise ModelError(f"{file}: its post-processor makes no pairs of texts")
    ends = [place + len(plain) for place in places]
    return (
        _Frame(tuple(single[:start]), (), tuple(single[start + len(plain) :])),
        _Frame(tuple(pair[: places[0]]), tuple(pair[ends[0] : places[1]]), tuple(pair[ends[1] :])),
    )


def refuse_instruction(request: ScoreRequest, name: str) -> None:
    """Pass a request without an instruction.

    Raises:
        InvalidRequest: it has one, and the model was not trained with any.
    """
    if request.instruction is not None:
        raise InvalidRequest(f"{name} was not trained with instructions; leave instruction out", "instruction")
