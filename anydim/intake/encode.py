"""Encode: tokenizer.json -> a function from texts to token ids, without any cutting.

Byte-level BPE goes through fastokens where that is installed and agrees with Hugging Face tokenizers on a self-check;
everything else through Hugging Face tokenizers. It knows nothing of limits, prompts or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from tokenizers import Tokenizer

from anydim.errors import ModelError
from anydim.types import Int32Array

Encode = Callable[[Sequence[str]], list[Int32Array]]

_PROBES: Final = (
    "",
    "The capital of China is Beijing.",
    "  spaces\t\nand\r\n\r\nlines ",
    "don't WE'LL 12345 3.14",
    "中国的首都是北京。",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "e\u0301 \u00e9 \ufb01 \u212b",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "def f(x):\n\treturn x**2  # <|endoftext|> <|im_start|>",
    "\x00\x01 \u200b \ufeff",
)


class _Kind(msgspec.Struct, frozen=True):
    type: str | None = None


class _File(msgspec.Struct):
    """The one field of tokenizer.json that is read here; its large vocabulary is skipped."""

    model: _Kind = _Kind()


def read_document(file: Path) -> str:
    """The text of a tokenizer.json.

    Raises:
        ModelError: the file is missing or not text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"{file.parent} has no tokenizer.json (only fast tokenizers are supported)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not a valid tokenizer: {error}") from error


def load_tokenizer(document: str, file: Path) -> Tokenizer:
    """The Hugging Face tokenizer of a document, without its own truncation and padding; errors name ``file``.

    Raises:
        ModelError: the document is broken.
    """
    try:
        tokenizer = Tokenizer.from_str(document)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{file} is not a valid tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def make_encode(document: str, reference: Tokenizer) -> tuple[Encode, bool]:
    """The fastest function that gives the ids of ``reference``, and whether that is fastokens'."""
    fast = _fast_encode(document, reference)
    return (fast, True) if fast is not None else (_plain_encode(reference), False)


def _plain_encode(tokenizer: Tokenizer) -> Encode:
    def encode_plain(texts: Sequence[str]) -> list[Int32Array]:
        return [np.array(encoding.ids, dtype=np.int32) for encoding in tokenizer.encode_batch_fast(list(texts))]

    return encode_plain


def _fast_encode(document: str, reference: Tokenizer) -> Encode | None:
    """fastokens for byte-level BPE, or None where it is absent, cannot read the document, or disagrees."""
    if msgspec.json.decode(document, type=_File).model.type != "BPE":
        return None
    try:
        from fastokens import Tokenizer as FastTokenizer

        fast = FastTokenizer.from_json_str(document)
    except Exception:  # absent, or a tokenizer that it does not read
        return None
    fast.no_truncation()
    fast.no_padding()

    def encode_fast(texts: Sequence[str]) -> list[Int32Array]:
        if not texts:
            return []
        ids, offsets = fast.encode_batch_flat(list(texts), add_special_tokens=True)
        flat = np.frombuffer(ids, np.uint32).astype(np.int32)
        return np.split(flat, np.frombuffer(offsets, np.uint64)[1:-1].astype(np.int64))

    expected = [encoding.ids for encoding in reference.encode_batch_fast(list(_PROBES))]
    found = [ids_T.tolist() for ids_T in encode_fast(_PROBES)]
    return encode_fast if found == expected else None
