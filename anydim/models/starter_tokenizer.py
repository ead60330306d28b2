"""Pieces and a map of replacements -> a tokenizer that reads text as SentencePiece's Unigram model does.

SentencePiece replaces the longest known string from left to right ("nmt_nfkc"): single code points, and a base with the
marks that compose with it. It never puts marks in another order, as NFC does (a vocalised Arabic or Hebrew text would
change). The source stores the replacements of single code points only; what composes with what is Unicode's own.
The `Precompiled` step of `tokenizers` loses marks: it replaces a whole grapheme by what belongs to its first part. So a
guard, U+0001, stands before each mark while single code points are replaced; it is taken away where the mark composes
with what precedes; NFC composes; the other guards, which kept NFC from composing or moving those marks, go last.

It knows nothing of files, caches or weights.
"""

from __future__ import annotations

import struct
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

BEGIN, PAD, END, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"

# SentencePiece deletes this control character, so a guard in the user's own text does what theirs would do.
_GUARD: Final = "\x01"
_FINAL_CONSONANTS: Final = range(0x11A8, 0x11C3)  # Hangul jamo that close a syllable
# What joins the grapheme before it without being a mark: joiners, half-width voicing, Thai and Lao AM.
_JOINING: Final = "\u200c\u200d\uff9e\uff9f\u0e33\u0eb3"
_CLOSES_A_SYLLABLE: Final = r"(?<=[\x{1100}-\x{1112}][\x{1161}-\x{1175}]\x{1})(?=[\x{11A8}-\x{11C2}])"
_BLOCK: Final = 256
_LOOK_BACK: Final = 4 * _BLOCK

Trie = dict[int, Any]
"""Byte -> Trie below it; 0 -> the value of the key that ends here."""


def build_tokenizer(pieces: Sequence[tuple[str, float]], replacements: Mapping[str, str]) -> Tokenizer:
    """A tokenizer equal to SentencePiece's Unigram with `nmt_nfkc`, the sentence between `<s>` and `</s>`.

    Args:
        pieces: text and log probability of each token, in the order of the ids; the special tokens are among them.
        replacements: code point -> what stands for it after normalisation (may be empty).

    Source: Kudo 2018 (Unigram), Kudo and Richardson 2018 (SentencePiece, normalisation by longest match).
    """
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.Unigram(list(pieces), unk_id=ids[UNKNOWN], byte_fallback=False))
    tokenizer.normalizer = build_normalizer(replacements)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([BEGIN, PAD, END, UNKNOWN, AddedToken(MASK, lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} {END} $B {END}",
        special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])],
    )
    return tokenizer


def build_normalizer(replacements: Mapping[str, str]) -> normalizers.Normalizer:
    """Replace single code points, compose, drop spaces at the ends and repeated ones.

    Args:
        replacements: code point -> what stands for it (may be empty).
    """
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(_guarded_places(replacements)), _GUARD),
            normalizers.Precompiled(_charsmap(replacements)),
            normalizers.Replace(Regex(_composing_guards()), ""),
            normalizers.NFC(),
            normalizers.Replace(_GUARD, ""),
            normalizers.Replace(Regex(r"\A +| +\z| +(?= )"), ""),
        ]
    )


def _guarded_places(replacements: Mapping[str, str]) -> str:
    """An expression for the places before all that joins what precedes it.

    The start of the text is left out: nothing precedes it, and `tokenizers` (0.21 to 0.23) loses count of its
    alignment there and panics in a later step.
    """
    closing = sorted(key for key, value in replacements.items() if len(value) == 1 and ord(value) in _FINAL_CONSONANTS)
    return rf"(?<!\A)(?=[\p{{M}}{_escaped(_JOINING)}\x{{11A8}}-\x{{11C2}}{_escaped(closing)}])"


def _composing_guards() -> str:
    """An expression for the guards before a mark that composes with the base and all marks before it."""
    alternatives = [
        f"(?<=[{_escaped(sorted(bases))}]{_escaped(_GUARD)}{''.join(_escaped(m + _GUARD) for m in marks[:-1])})"
        f"(?={_escaped(marks[-1])})"
        for marks, bases in sorted(_compositions().items())
    ]
    return rf"{_escaped(_GUARD)}(?:{'|'.join([*alternatives, _CLOSES_A_SYLLABLE])})"


def _compositions() -> Mapping[str, set[str]]:
    """Marks in canonical order -> the bases which compose with them; Hangul, which is arithmetic, left out."""
    compose = normalizers.NFC().normalize_str
    bases: defaultdict[str, set[str]] = defaultdict(set)
    for char in filter(unicodedata.decomposition, map(chr, range(sys.maxunicode + 1))):
        whole = unicodedata.normalize("NFD", char)
        if len(whole) > 1 and compose(whole) == char:
            for end in range(2, len(whole) + 1):
                bases[whole[1:end]].add(whole[0])
    return bases


def _escaped(chars: Iterable[str]) -> str:
    return "".join(f"\\x{{{ord(char):X}}}" for char in chars)


def _charsmap(replacements: Mapping[str, str]) -> bytes:
    """SentencePiece's precompiled map: length of the double array, the array, the texts, each closed by a zero byte."""
    texts = bytearray()
    keys: dict[bytes, int] = {}
    for char, text in sorted(replacements.items()):
        if char != _GUARD:
            keys[char.encode()] = len(texts)
            texts += _kept_apart(text).encode() + b"\0"
    units = _double_array(_trie(keys))
    return struct.pack("<I", units.nbytes) + units.tobytes() + bytes(texts)


def _kept_apart(text: str) -> str:
    """A replacement of several characters, or of none, composes with no neighbour in SentencePiece: guards say so."""
    if len(text) == 1:
        return text
    return f"{_GUARD}{text}{_GUARD}" if text else _GUARD


def _trie(keys: Mapping[bytes, int]) -> Trie:
    root: Trie = {}
    for key, value in keys.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value
    return root


def _double_array(root: Trie) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """A trie as Darts-clone stores it (Yata 2008): the child of a unit for byte b lies at base XOR b.

    Bits of a unit: 0-7 the byte that leads to it, 8 whether a key ends here, 10-30 its own index XOR base. A unit that
    holds a value has bit 31 set. No two nodes share a base, since a lookup checks the byte only, not the parent.
    """
    units = np.zeros(_BLOCK, np.uint32)
    taken = np.zeros(_BLOCK, np.bool_)
    taken[0] = True
    bases: set[int] = set()
    waiting = [(root, 0)]
    while waiting:
        node, index = waiting.pop()
        base = next(_free_bases(taken, bases, list(node)), len(units))
        if base == len(units):
            units, taken = (np.concatenate([array, np.zeros(_BLOCK, array.dtype)]) for array in (units, taken))
        bases.add(base)
        units[index] |= (index ^ base) << 10 | (0 in node) << 8
        for byte, below in node.items():
            taken[base ^ byte] = True
            units[base ^ byte] = byte if byte else 1 << 31 | below
            if byte:
                waiting.append((below, base ^ byte))
    return units


def _free_bases(taken: np.ndarray[Any, np.dtype[np.bool_]], bases: set[int], labels: list[int]) -> Iterator[int]:
    """Bases that no node has and whose places are free, in the last blocks only: the others are all but full."""
    places = np.arange(_BLOCK)[:, None] ^ np.array(labels)
    for start in range(max(0, len(taken) - _LOOK_BACK), len(taken), _BLOCK):
        free = np.flatnonzero(~taken[start : start + _BLOCK][places].any(axis=1))
        yield from (base for base in (start + free).tolist() if base not in bases)
