"""Self-checks: laws that vectors must keep whatever the model: of batches, of dimensions, of prompts, of repetition.

It knows a Subject and, for parity, sentence-transformers where that is installed; it knows nothing of meaning.

Legend: N texts, d components.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from anydim.errors import InvalidRequest
from anydim.quality.check import Finding, meanings, unit
from anydim.quality.subject import Subject
from anydim.types import Float32Array

_STEP: Final = "self-check"
_SAME: Final = 0.9999  # cosine of a text alone and in a batch; bfloat16 stays above it
_CUT: Final = 0.99999  # cosine of a cut that is made here and there
_PARITY: Final = 0.999  # cosine of two precisions of the same model
_DIMS: Final = (32, 64, 128)


def self_check(subject: Subject, folder: Path | None = None) -> list[Finding]:
    """Every law that can be looked at from outside.

    Args:
        subject: what is checked.
        folder: the model's files, for parity with sentence-transformers; None where they are not at hand.
    """
    texts = [sentence for row in meanings()[:8] for sentence in row[::2]]
    batch_Nd = subject.embed(texts)
    found = [_length(batch_Nd), _batch(subject, texts, batch_Nd), _repeat(subject, texts, batch_Nd)]
    found.append(_dimensions(subject, texts))
    found.append(_prompts(subject, texts))
    if folder is not None:
        found.append(_parity(subject, texts, folder))
    return found


def _length(batch_Nd: Float32Array) -> Finding:
    lengths = np.linalg.norm(batch_Nd, axis=1)
    figures = {"least": float(lengths.min()), "most": float(lengths.max())}
    passed = bool(np.isfinite(batch_Nd).all() and np.abs(lengths - 1).max() < 1e-3)
    return Finding(step=_STEP, name="length one and finite", passed=passed, figures=figures)


def _batch(subject: Subject, texts: Sequence[str], batch_Nd: Float32Array) -> Finding:
    alone_Nd = np.concatenate([subject.embed([text]) for text in texts])
    least = float((unit(alone_Nd) * unit(batch_Nd)).sum(axis=1).min())
    return Finding(step=_STEP, name="batch = single", passed=least >= _SAME, figures={"least_cosine": least})


def _repeat(subject: Subject, texts: Sequence[str], batch_Nd: Float32Array) -> Finding:
    again_Nd = subject.embed(texts)
    least = float((unit(again_Nd) * unit(batch_Nd)).sum(axis=1).min())
    same = float(np.array_equal(again_Nd, batch_Nd))
    figures = {"least_cosine": least, "equal_bytes": same}
    return Finding(step=_STEP, name="the same twice", passed=least >= _SAME, figures=figures)


def _dimensions(subject: Subject, texts: Sequence[str]) -> Finding:
    name = "dimension d = first d components, scaled to length one"
    full_Nd = subject.embed(texts)
    figures = {}
    try:
        for dim in (dim for dim in _DIMS if dim < full_Nd.shape[1]):
            answered_Nd = subject.embed(texts, dim)
            if answered_Nd.shape[1] != dim:
                words = f"{dim} components were asked for, {answered_Nd.shape[1]} came"
                return Finding(step=_STEP, name=name, passed=False, words=words)
            cosines = (unit(full_Nd[:, :dim]) * answered_Nd).sum(axis=1)  # not scaled: lengths count too
            figures[f"d{dim}"] = float(1 - np.abs(cosines - 1).max())
    except InvalidRequest as error:
        return Finding(step=_STEP, name=name, passed=None, words=f"it takes no dimension: {error.message}")
    return Finding(step=_STEP, name=name, passed=min(figures.values(), default=1.0) >= _CUT, figures=figures)


def _prompts(subject: Subject, texts: Sequence[str]) -> Finding:
    """Prompts change vectors where there are some."""
    name = "prompts are applied"
    if not subject.takes_input_type:
        return Finding(step=_STEP, name=name, passed=None, words="it does not say which prompts it has")
    if "query" not in subject.prompts:
        return Finding(step=_STEP, name=name, passed=None, words="the model has no prompt for queries")
    plain_Nd, query_Nd = subject.embed(texts, input_type="document"), subject.embed(texts, input_type="query")
    most = float((unit(plain_Nd) * unit(query_Nd)).sum(axis=1).max())
    return Finding(step=_STEP, name=name, passed=most < _SAME, figures={"most_cosine": most})


def _parity(subject: Subject, texts: Sequence[str], folder: Path) -> Finding:
    name = "parity with sentence-transformers"
    if importlib.util.find_spec("sentence_transformers") is None:
        return Finding(step=_STEP, name=name, passed=None, words="it is not installed")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    reference = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    expected_Nd = np.asarray(reference.encode(list(texts)), np.float32)
    found_Nd = subject.embed(texts)
    width = found_Nd.shape[1]
    least = float((unit(expected_Nd[:, :width]) * unit(found_Nd)).sum(axis=1).min())
    return Finding(step=_STEP, name=name, passed=least >= _PARITY, figures={"least_cosine": least})
