"""Check: whether vectors mean what they should, in three steps, each with figures of unrelated pairs beside it.

A high cosine alone proves nothing where all cosines are high, so every step also says how well right pairs are told
from wrong ones: the area under the ROC curve and the margin between the means. It knows sentences and a Subject.

Legend: P pairs, d components, Q queries, N documents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import numpy as np

from anydim.config import CheckSettings
from anydim.quality.extra import need
from anydim.quality.subject import Subject
from anydim.types import Float32Array

_TOP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked.

    Attributes:
        step: the number and name of its step.
        name: what was checked.
        passed: whether it holds; None where it is only told.
        figures: what was measured, by name.
        words: why it failed, or what stands in the way.
    """

    step: str
    name: str
    passed: bool | None
    figures: dict[str, float] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One query of the user and what was found for it.

    Attributes:
        query: its text.
        hits: the first documents with their cosines, best first.
        right: whether a right one is among them; None where no answer is known.
    """

    query: str
    hits: Sequence[tuple[float, str]]
    right: bool | None


def meanings() -> list[list[str]]:
    """Rows of four sentences that mean the same: two English, two Chinese; written for this project."""
    found: list[list[str]] = _sentences()["meanings"]
    return found


def declaration() -> dict[str, list[str]]:
    """The same articles of the Declaration of Human Rights by language."""
    found: dict[str, list[str]] = _sentences()["declaration"]
    return found


def check_synonyms(subject: Subject, limits: CheckSettings) -> list[Finding]:
    """Step 1: sentences that mean the same are alike, and others are not."""
    rows = meanings()
    found = []
    for language, first, second in (("English", 0, 1), ("Chinese", 2, 3)):
        left_Pd, right_Pd = (subject.embed([row[place] for row in rows]) for place in (first, second))
        figures = separation(left_Pd, right_Pd)
        found.append(_judged("1 synonyms", language, figures, limits.synonyms, limits, ()))
    return found


def check_translations(subject: Subject, limits: CheckSettings) -> list[Finding]:
    """Step 2: a sentence and its translation are alike, and find each other; other languages are only told."""
    rows = meanings()
    english_Pd, chinese_Pd = (subject.embed([row[place] for row in rows]) for place in (0, 2))
    figures = separation(english_Pd, chinese_Pd) | both_ways(english_Pd, chinese_Pd)
    ways = ("found_forth", "found_back")
    found = [_judged("2 translations", "Chinese and English", figures, limits.translations, limits, ways)]
    articles = declaration()
    english_Pd = subject.embed(articles["en"])
    for language, texts in articles.items():
        if language != "en":
            other_Pd = subject.embed(texts)
            figures = separation(english_Pd, other_Pd) | both_ways(english_Pd, other_Pd)
            found.append(Finding(step="2 translations", name=f"English and {language}", passed=None, figures=figures))
    return found


def search_own(
    queries_Qd: Float32Array,
    documents_Nd: Float32Array,
    queries: Sequence[str],
    documents: Sequence[str],
    labels: Sequence[dict[int, int]] | None,
) -> tuple[list[Shown], Finding]:
    """Step 3: the user's own queries against the user's own documents, the first three of each.

    Args:
        queries_Qd: vectors.
        documents_Nd: vectors.
        queries: texts.
        documents: texts.
        labels: the right documents of each query, or None.
    """
    cosines = unit(queries_Qd) @ unit(documents_Nd).T
    order = np.argsort(-cosines, axis=1)
    shown = []
    for query, places in enumerate(order[:, :_TOP]):
        known = labels[query] if labels is not None else {}
        right = any(int(place) in known for place in places) if known else None
        shown.append(
            Shown(
                query=queries[query],
                hits=[(float(cosines[query, place]), documents[place]) for place in places],
                right=right,
            )
        )
    best = np.sort(cosines, axis=1)[:, ::-1]
    figures = {"top1_cosine": float(best[:, 0].mean()), "all_cosine": float(cosines.mean())}
    if labels is not None:
        asked = [query for query, known in enumerate(labels) if known]
        for k in (1, _TOP, 10):
            parts = [len(set(order[query, :k].tolist()) & set(labels[query])) / len(labels[query]) for query in asked]
            figures[f"recall_at_{k}"] = float(np.mean(parts)) if parts else 0.0
    return shown, Finding(step="3 own search", name=f"{len(queries):,} queries", passed=None, figures=figures)


def separation(left_Pd: Float32Array, right_Pd: Float32Array) -> dict[str, float]:
    """Cosines of right pairs (row i with row i) and of wrong ones, and how well they are told apart."""
    cosines = unit(left_Pd) @ unit(right_Pd).T
    is_right = np.eye(len(cosines), dtype=bool)
    right, wrong = cosines[is_right], cosines[~is_right]
    area = need("sklearn.metrics").roc_auc_score(is_right.ravel(), cosines.ravel())
    return {
        "cosine": float(right.mean()),
        "least": float(right.min()),
        "unrelated": float(wrong.mean()),
        "margin": float(right.mean() - wrong.mean()),
        "auc": float(area),
    }


def both_ways(left_Pd: Float32Array, right_Pd: Float32Array) -> dict[str, float]:
    """Share of rows whose nearest row on the other side is their own, there and back."""
    cosines = unit(left_Pd) @ unit(right_Pd).T
    own = np.arange(len(cosines))
    return {
        "found_forth": float((cosines.argmax(axis=1) == own).mean()),
        "found_back": float((cosines.argmax(axis=0) == own).mean()),
    }


def unit(vectors_Nd: Float32Array) -> Float32Array:
    """Rows of length one."""
    rows_Nd: Float32Array = vectors_Nd / np.maximum(np.linalg.norm(vectors_Nd, axis=1, keepdims=True), 1e-12)
    return rows_Nd


def _judged(
    step: str, name: str, figures: dict[str, float], least: float, limits: CheckSettings, ways: Sequence[str]
) -> Finding:
    wanted = {"cosine": least, "auc": limits.separation, **dict.fromkeys(ways, limits.found)}
    missed = [f"{key} {figures[key]:.3f} is below {bar:g}" for key, bar in wanted.items() if figures[key] < bar]
    return Finding(step=step, name=name, passed=not missed, figures=figures, words="; ".join(missed))


def _sentences() -> dict[str, Any]:
    text = resources.files("anydim.quality").joinpath("sentences.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
