"""Labels: which documents answer which queries, from a file.

TREC lines (`query 0 document relevance`), BEIR's tab-separated table (`query-id corpus-id score`), or JSONL with these
names. It knows ids; it knows no vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from anydim.errors import InvalidRequest

_QUERY: Final = ("query-id", "query_id", "qid", "query")
_DOCUMENT: Final = ("corpus-id", "corpus_id", "docid", "doc_id", "document")
_SCORE: Final = ("score", "relevance", "label")


def read_labels(file: Path, queries: Sequence[str], documents: Sequence[str]) -> list[dict[int, int]]:
    """For each query the places of its documents with their relevance; those of no use are left out.

    Args:
        file: with the labels.
        queries: ids.
        documents: ids.

    Returns:
        One dictionary a query, empty where nothing relevant is named for it.

    Raises:
        InvalidRequest: the file cannot be read, or names no document of the corpus.
    """
    place_of = {name: place for place, name in enumerate(documents)}
    query_of = {name: place for place, name in enumerate(queries)}
    found: list[dict[int, int]] = [{} for _ in queries]
    strangers = 0
    for query, document, relevance in _lines(file):
        if query in query_of and document in place_of and relevance > 0:
            found[query_of[query]][place_of[document]] = relevance
        strangers += document not in place_of or query not in query_of
    if not any(found):
        raise InvalidRequest(
            f"{file}: no label names a query and a document of these files ({strangers:,} name others); "
            "are the ids the same?",
            "qrels",
        )
    return found


def _lines(file: Path) -> Iterator[tuple[str, str, int]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}", "qrels") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and _is_header(line)):
            continue
        row = _of_json(line) if line.lstrip().startswith("{") else _of_words(line)
        if row is None:
            raise InvalidRequest(
                f"{file}:{number}: {line[:80]!r} is no label; known are `query 0 document relevance`, "
                "`query document relevance` separated by tabs, and JSONL with query-id, corpus-id and score",
                "qrels",
            )
        yield row


def _is_header(line: str) -> bool:
    return any(name in line.split() for name in _QUERY)


def _of_words(line: str) -> tuple[str, str, int] | None:
    words = line.split("\t") if "\t" in line else line.split()
    if len(words) == 4:
        words = [words[0], *words[2:]]
    if len(words) not in (2, 3):
        return None
    return _checked(words[0], words[1], words[2] if len(words) == 3 else 1)


def _of_json(line: str) -> tuple[str, str, int] | None:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    if not isinstance(row, dict):
        return None
    query, document, score = (_first(row, names) for names in (_QUERY, _DOCUMENT, _SCORE))
    return None if query is None or document is None else _checked(query, document, 1 if score is None else score)


def _first(row: Mapping[str, object], names: Sequence[str]) -> object:
    return next((row[name] for name in names if name in row), None)


def _checked(query: object, document: object, relevance: object) -> tuple[str, str, int] | None:
    try:
        grade = float(str(relevance))
        # Grades are whole numbers (TREC); a part of one is still relevant.
        return str(query).strip(), str(document).strip(), math.ceil(grade) if grade > 0 else int(grade)
    except (ValueError, OverflowError):
        return None
