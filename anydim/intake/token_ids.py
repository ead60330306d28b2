"""Token ids as input: refused, taken as the model's own, or decoded from OpenAI's cl100k and tokenised anew.

A client may send ids of another tokenizer without knowing it, and they cannot be told apart from the ids alone, so
that refusing is the default. This file knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import numpy as np

from anydim.errors import InvalidRequest, MissingExtra
from anydim.intake.request import Truncate
from anydim.intake.tokenizer import TextTokenizer
from anydim.types import Int32Array

Mode = Literal["refuse", "model", "cl100k"]

_REFUSED: Final = (
    "token ids are not accepted: ids of another tokenizer would give wrong vectors without an error. Send text "
    "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)), or start the server with --token-ids model "
    "(ids of this model's tokenizer) or --token-ids cl100k (ids of OpenAI's tokenizer)"
)


class Decoder(Protocol):
    """Ids of another tokenizer back to text."""

    n_vocab: int

    def decode(self, tokens: list[int]) -> str:
        """The text of these ids."""
        ...


class TokenIdReader:
    """Turns token ids from a request into ids of the served model."""

    def __init__(self, mode: Mode, tokenizer: TextTokenizer, vocab_size: int) -> None:
        """Prepare for ``mode``.

        Raises:
            MissingExtra: cl100k is asked for and its vocabulary is not installed.
        """
        self._mode = mode
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._decoder = _cl100k() if mode == "cl100k" else None

    def read(self, inputs: Sequence[Sequence[int]], truncate: Truncate, first: int = 0) -> list[Int32Array]:
        """Ids with the model's special tokens, cut to its limit; errors count inputs from ``first``.

        Raises:
            InvalidRequest: ids are refused, empty or out of range.
        """
        if self._mode == "refuse":
            raise InvalidRequest(_REFUSED, "input")
        size = self._decoder.n_vocab if self._decoder else self._vocab_size
        arrays = [_checked(ids, index, size) for index, ids in enumerate(inputs, first)]
        if self._decoder is not None:
            texts = [self._decode(self._decoder, ids_T, index) for index, ids_T in enumerate(arrays, first)]
            return self._tokenizer.encode(texts, truncate, first=first)
        whole = map(self._with_ends, arrays)
        return [self._tokenizer.cut(ids_T, index, truncate) for index, ids_T in enumerate(whole, first)]

    def _decode(self, decoder: Decoder, ids_T: Int32Array, index: int) -> str:
        try:
            return decoder.decode(ids_T.tolist())
        except KeyError:  # the vocabulary has holes
            raise InvalidRequest(
                f"input[{index}] has a token id that cl100k does not define", f"input[{index}]"
            ) from None

    def _with_ends(self, ids_T: Int32Array) -> Int32Array:
        first = np.array(self._tokenizer.first, dtype=np.int32)
        last = np.array(self._tokenizer.last, dtype=np.int32)
        if not np.array_equal(ids_T[: len(first)], first):
            ids_T = np.concatenate([first, ids_T])
        if not np.array_equal(ids_T[len(ids_T) - len(last) :], last):
            ids_T = np.concatenate([ids_T, last])
        return ids_T


def _checked(ids: Sequence[int], index: int, size: int) -> Int32Array:
    param = f"input[{index}]"
    if len(ids) == 0:
        raise InvalidRequest(f"{param} is an empty list of token ids", param)
    if min(ids) < 0 or max(ids) >= size:
        raise InvalidRequest(f"{param} has a token id outside 0 to {size - 1}", param)
    return np.array(ids, dtype=np.int32)


def _cl100k() -> Decoder:
    try:
        import bpe_openai
    except ImportError:
        raise MissingExtra("--token-ids cl100k needs a package: pip install 'anydim[cl100k]'") from None
    decoder: Decoder = bpe_openai.get_encoding("cl100k_base")
    return decoder
