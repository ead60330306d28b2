"""Vocabulary: a model's tokens to look at, for the tokenising routes. It knows tokenizer.json; it knows no HTTP.

Texts are read as Hugging Face reads them, special tokens that they spell out included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anydim.errors import InvalidRequest
from anydim.intake.encode import load_tokenizer, read_document


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a text.

    Attributes:
        id: its id.
        text: what it stands for.
        is_special: whether it is a special token.
        start: its first character in the text, or None for special ones that were added.
        stop: the character behind it.
    """

    id: int
    text: str
    is_special: bool
    start: int | None
    stop: int | None


class Vocabulary:
    """The tokenizer of one model, as Hugging Face loads it."""

    def __init__(self, file: Path) -> None:
        """Load tokenizer.json.

        Raises:
            ModelError: the file is missing or broken.
        """
        self._tokenizer = load_tokenizer(read_document(file), file)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {token for token, entry in added.items() if entry.special}

    def pieces(self, text: str, add_special_tokens: bool, field: str) -> list[Piece]:
        """The tokens of a text; errors name ``field``.

        Raises:
            InvalidRequest: the text holds a lone surrogate.
        """
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except (UnicodeEncodeError, TypeError):
            raise InvalidRequest(f"{field} holds a lone surrogate, which is not a character", field) from None
        rows = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
        return [self._piece(text, *row) for row in rows]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool, field: str) -> str:
        """The text of token ids.

        Raises:
            InvalidRequest: an id is no token.
        """
        size = self._tokenizer.get_vocab_size()
        for token in ids:
            if not 0 <= token < size:
                raise InvalidRequest(f"{field} has a token id outside 0 to {size - 1}", field)
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def _piece(self, text: str, token: int, name: str, span: tuple[int, int], added: int) -> Piece:
        if added:
            return Piece(token, name, True, None, None)
        start, stop = span
        return Piece(token, text[start:stop] or name, token in self._special, start, stop)
