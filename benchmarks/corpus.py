"""Fresh texts for benchmarks, put together at random from the real sentences in tests/data.

Not a script. It knows the two files and nothing of models.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

_DATA: Final = Path(__file__).parent.parent / "tests" / "data"


class Corpus:
    """Sentences of one language, drawn anew each time."""

    def __init__(self, language: str, seed: int | None = None) -> None:
        """Read the sentences of ``language`` (en, zh, de, fr, ...); without a seed every run differs."""
        self._draw = random.Random(seed)
        lines = _rows("django_l10n.jsonl")
        key = "zh_Hans" if language == "zh" else language
        self._lines = [row[key] for row in lines if row.get(key)]
        self._articles = [row["text"] for row in _rows("udhr_articles.jsonl") if row["lang"] == language]

    @property
    def sentences(self) -> list[str]:
        """The interface sentences that ``lines`` puts together."""
        return list(self._lines)

    def lines(self, count: int) -> list[str]:
        """One-line texts: two interface sentences each, about a dozen tokens."""
        return [" ".join(self._draw.sample(self._lines, 2)) for _ in range(count)]

    def pages(self, count: int, words: int = 300) -> list[str]:
        """Texts of at least ``words`` words, made of whole articles."""
        return [self._page(words) for _ in range(count)]

    def _page(self, words: int) -> str:
        parts: list[str] = []
        while sum(len(part.split()) for part in parts) < words:
            parts.append(self._draw.choice(self._articles))
        return "\n".join(parts)


def articles(count: int, seed: int | None = None) -> list[str]:
    """So many different articles of the Declaration of Human Rights, in all languages that there are."""
    return random.Random(seed).sample([row["text"] for row in _rows("udhr_articles.jsonl")], count)


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (_DATA / name).read_text(encoding="utf-8").splitlines()]
