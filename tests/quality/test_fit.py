"""A fit and its judgement of itself, on documents that it did not see."""

import pytest
import torch

from anydim.errors import ConfigError
from anydim.quality.fit import Questions, fit
from tests.quality.rows import hidden_structure, in_order

WIDTH = 96


def test_hidden_structure_is_found() -> None:
    fitted = fit(hidden_structure(1500, WIDTH), [32, 64, WIDTH])
    assert fitted.documents == 1200
    assert fitted.held_back == 300
    few, some, full = fitted.rows
    assert few.fitted > few.truncated + 0.1
    assert few.gain.low > 0
    assert some.fitted > some.truncated
    assert full.gain.value == pytest.approx(0, abs=0.01)
    assert fitted.is_worth_it
    assert fitted.advice.startswith("Use it: it gains at 32")


def test_what_is_in_order_needs_no_fit() -> None:
    fitted = fit(in_order(1500, WIDTH), [32, 64], method="svd")
    assert abs(fitted.rows[0].gain.value) < 0.03
    assert not fitted.is_worth_it
    assert "do not use it" in fitted.advice


def test_few_documents_are_said_to_be_few() -> None:
    fitted = fit(hidden_structure(60, WIDTH), [32, 64], method="svd")
    assert "It was fitted on 48 documents for 96 components." in fitted.advice
    assert "too few to tell" in fitted.advice


def test_labels_are_followed_where_there_are_some() -> None:
    documents_ND = hidden_structure(600, WIDTH)
    queries_QD = torch.nn.functional.normalize(documents_ND + 0.02 * torch.randn(600, WIDTH))
    questions = Questions(queries_QD=queries_QD, labels=[{place: 1} for place in range(600)])
    fitted = fit(documents_ND, [32], questions=questions, method="svd")
    assert fitted.metric == "ndcg_at_10"
    assert fitted.queries == fitted.held_back == 120  # only those whose documents the fit did not see
    assert fitted.rows[0].fitted >= fitted.rows[0].truncated


def test_auto_says_what_it_went_by() -> None:
    fitted = fit(hidden_structure(400, WIDTH), [32])
    assert fitted.method == max(fitted.chosen_by, key=lambda name: fitted.chosen_by[name])
    assert set(fitted.chosen_by) == {"svd", "spread", "neighbours"}


def test_unknown_methods_and_too_few_documents_are_refused() -> None:
    with pytest.raises(ConfigError, match="--method must be one of auto, svd, spread, neighbours, got 'pca'"):
        fit(hidden_structure(100, WIDTH), [32], method="pca")
    with pytest.raises(ConfigError, match="at least 50 documents, got 49"):
        fit(hidden_structure(49, WIDTH), [32])
