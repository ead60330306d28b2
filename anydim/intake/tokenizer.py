"""TextTokenizer: texts -> token ids with the model's special tokens, cut to its limit.

It knows tokenizer.json and nothing of prompts, dimensions or HTTP; intake/encode.py chooses the library.

Special tokens spelled out in a text are read as special tokens, as Hugging Face does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from anydim.errors import InvalidRequest, ModelError, TooLong
from anydim.intake.encode import load_tokenizer, make_encode, read_document
from anydim.intake.request import Truncate
from anydim.types import Int32Array

_CHARACTERS: Final = 16  # a token; a text of more is read in parts
_MARGIN: Final = 64  # tokens near a cut may differ from those of the whole text


class TextTokenizer:
    """The tokenizer of one model. Thread-safe; encoding releases the interpreter lock."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        """Load a tokenizer.

        Args:
            file: tokenizer.json.
            max_tokens: the longest input, special tokens included.

        Raises:
            ModelError: the file is missing or broken.
        """
        self.max_tokens = max_tokens
        document = read_document(file)
        self._tokenizer = load_tokenizer(document, file)
        self._encode, self._is_fast = make_encode(document, self._tokenizer)
        self.first, self.last = _special_ends(self._tokenizer)
        self._char_bound = max_tokens * _CHARACTERS

    @property
    def is_fast(self) -> bool:
        """Whether fastokens does the work."""
        return self._is_fast

    def encode(self, texts: Sequence[str], truncate: Truncate, prefix: str = "", first: int = 0) -> list[Int32Array]:
        """Token ids of each text behind ``prefix``, at most ``max_tokens`` long; errors count texts from ``first``.

        Raises:
            TooLong: a text is too long and ``truncate`` is ``none``; the message has the counts.
            InvalidRequest: a text holds a lone surrogate, which has no UTF-8 form.
        """
        long = {place for place, text in enumerate(texts) if len(text) > self._char_bound}
        try:
            encoded = self._encode(["" if place in long else prefix + text for place, text in enumerate(texts)])
            for place in long:
                encoded[place] = self._encode_long(texts[place], truncate, prefix)
        except (UnicodeEncodeError, TypeError) as error:
            raise _surrogate(texts, first) from error
        prompt = self._prompt_tokens(prefix) if truncate is Truncate.START else 0
        return [
            self.cut(ids_T, first + place, truncate, prompt, place not in long) for place, ids_T in enumerate(encoded)
        ]

    def cut(self, ids_T: Int32Array, index: int, truncate: Truncate, prompt: int = 0, whole: bool = True) -> Int32Array:
        """Cut ids to the limit; the special tokens at both ends and the first ``prompt`` others survive.

        ``whole`` says whether the text was read to its end, so that its tokens were counted.

        Raises:
            TooLong: they are too many and ``truncate`` is ``none``.
        """
        excess = len(ids_T) - self.max_tokens
        if excess <= 0:
            return ids_T
        if truncate is Truncate.NONE:
            size = f"{len(ids_T)} tokens" if whole else f"at least {len(ids_T)} tokens"
            raise TooLong(
                f"input[{index}] has {size}, but the model reads {self.max_tokens} tokens; "
                "shorten it, or send truncate end or start to have it cut",
                f"input[{index}]",
            )
        first = min(len(self.first) + prompt, self.max_tokens - len(self.last))
        last = len(ids_T) - len(self.last)
        keep = slice(first, last - excess) if truncate is Truncate.END else slice(first + excess, last)
        return np.concatenate([ids_T[:first], ids_T[keep], ids_T[last:]])

    def spans(self, text: str) -> Int32Array:
        """Where each token of a text begins and ends in it, in characters, without special tokens: int32 (T, 2)."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(offsets, dtype=np.int32).reshape(-1, 2)

    def room(self, prefix: str) -> int:
        """How many tokens of text fit behind a prompt."""
        return self.max_tokens - len(self.first) - len(self.last) - self._prompt_tokens(prefix)

    def _prompt_tokens(self, prefix: str) -> int:
        """Tokens that the prompt takes on its own, without special ones."""
        return len(self._encode([prefix])[0]) - len(self.first) - len(self.last)

    def _encode_long(self, text: str, truncate: Truncate, prefix: str) -> Int32Array:
        """Read no more of a very long text than it takes to know what survives the cut."""
        size = self._char_bound
        while True:
            part = text[-size:] if truncate is Truncate.START else text[:size]
            ids_T = self._encode([prefix + part])[0]
            if size >= len(text) or len(ids_T) > self.max_tokens + _MARGIN:
                return ids_T
            size *= 4


def _surrogate(texts: Sequence[str], first: int) -> InvalidRequest:
    for index, text in enumerate(texts, first):
        if any("\ud800" <= character <= "\udfff" for character in text):
            return InvalidRequest(f"input[{index}] holds a lone surrogate, which is not a character", f"input[{index}]")
    return InvalidRequest("an input is not text", "input")


def _special_ends(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the post-processor puts before and behind each text."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    raise ModelError("the tokenizer's post-processor changes the text's own tokens")
