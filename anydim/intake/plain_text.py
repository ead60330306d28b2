"""PlainTokenizer: a model's tokenizer that reads control tokens spelled out in a text as plain text.

Hugging Face tokenizers find added tokens in any text before its words are split. A document could so forge the end of
a reranking prompt. Here these tokens are taken out of the tokenizer; the prompt's own ones are put in by id. The ids
of a text that spells out none are the same either way, since added tokens cut a text into pieces that are tokenised
apart from each other. It knows tokenizer.json; it knows no prompts and no limits.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from anydim.errors import InvalidRequest, ModelError
from anydim.intake.encode import load_tokenizer, make_encode, read_document
from anydim.types import Int32Array

Kind = TypeVar("Kind")


class _Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _File(msgspec.Struct):
    """The one field of tokenizer.json that says which tokens were added."""

    added_tokens: list[_Added] | None = None


class PlainTokenizer:
    """Texts to ids without special tokens at the ends. Thread-safe."""

    def __init__(self, file: Path, keep_ordinary: bool) -> None:
        """Load tokenizer.json without its control tokens.

        Args:
            file: tokenizer.json.
            keep_ordinary: whether added tokens that are not special stay, as words that were added to a vocabulary do.

        Raises:
            ModelError: the file is missing or broken.
        """
        document = read_document(file)
        added = _decoded(document, _File, file).added_tokens or []
        self.controls = {token.content: token.id for token in added}
        bare = _without(document, file, {token.content for token in added if token.special or not keep_ordinary})
        self._encode, self.is_fast = make_encode(bare, load_tokenizer(bare, file))

    def encode(self, texts: Sequence[str], fields: Sequence[str]) -> list[Int32Array]:
        """Ids of each text; no text gives the id of a control token.

        Args:
            texts: the texts.
            fields: the name of each in the request, for errors.

        Raises:
            InvalidRequest: a text holds a lone surrogate, which has no UTF-8 form.
        """
        try:
            return self._encode(texts)
        except (UnicodeEncodeError, TypeError):
            for text, field in zip(texts, fields, strict=True):
                if any("\ud800" <= character <= "\udfff" for character in text):
                    raise InvalidRequest(f"{field} holds a lone surrogate, which is not a character", field) from None
            raise InvalidRequest("an input is not text") from None

    def encode_prompt(self, prompt: str) -> Int32Array:
        """Ids of a text of our own, in which control tokens are read as such."""
        if not self.controls:
            return self._encode([prompt])[0]
        parts = re.split("(" + "|".join(map(re.escape, self.controls)) + ")", prompt)
        ids = [self._control(part) if part in self.controls else self._encode([part])[0] for part in parts if part]
        return np.concatenate(ids) if ids else np.empty(0, np.int32)

    def _control(self, token: str) -> Int32Array:
        return np.array([self.controls[token]], np.int32)


def _without(document: str, file: Path, taken: set[str]) -> str:
    """The document without the tokens in ``taken``.

    Where other added tokens stay, and in the model's own vocabulary, a token keeps its id under a random name that no
    text can spell, so that no other id moves.
    """
    nonce = secrets.token_hex(16)
    names = {token: f" {nonce} {token}" for token in taken}
    parts = _decoded(document, dict[str, msgspec.Raw], file)
    model = _decoded(parts.get("model", b"null"), dict[str, msgspec.Raw], file)
    if "vocab" in model and _mentions(model["vocab"], names):
        model["vocab"] = msgspec.Raw(msgspec.json.encode(_renamed(msgspec.json.decode(model["vocab"]), names)))
    unknown = msgspec.json.decode(model.get("unk_token", b"null"))
    if unknown in names:
        model["unk_token"] = msgspec.Raw(msgspec.json.encode(names[unknown]))
    added = msgspec.json.decode(parts.get("added_tokens", b"null")) or []
    renamed = [token | {"content": names.get(token["content"], token["content"])} for token in added]
    stays = any(token["content"] not in taken for token in added)
    changes = {"added_tokens": renamed if stays else [], "post_processor": None, "model": model}
    return msgspec.json.encode(parts | changes).decode()


def _decoded(text: Any, kind: type[Kind], file: Path) -> Kind:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise ModelError(f"{file} is not a valid tokenizer: {error}") from error


def _mentions(vocabulary: msgspec.Raw, names: Mapping[str, str]) -> bool:
    """Whether a vocabulary may hold one of the names; large ones without any need not be decoded."""
    text = bytes(vocabulary)
    return b"\\u00" in text or any(msgspec.json.encode(name) in text for name in names)


def _renamed(vocabulary: Any, names: Mapping[str, str]) -> Any:
    """A vocabulary with other names: of BPE and WordPiece ids by name, of Unigram names and scores in order."""
    if isinstance(vocabulary, dict):
        return {names.get(name, name): place for name, place in vocabulary.items()}
    if isinstance(vocabulary, list):
        return [[names.get(entry[0], entry[0]), *entry[1:]] for entry in vocabulary]
    return vocabulary
