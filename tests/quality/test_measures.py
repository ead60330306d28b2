"""What is measured, against scikit-learn, scipy, numpy and sentence-transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ndcg_score, v_measure_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors

from anydim import Embedder
from anydim.quality.classes import Classification, Clustering, numbered
from anydim.quality.forms import DTYPES, Form, Rows, allowed_dims, chosen_dims, distinct, in_form, ladder
from anydim.quality.intervals import draws, means, ratio
from anydim.quality.nearest import nearest
from anydim.quality.pairs import Pairs
from anydim.quality.ranking import agreement, judged, sampled
from anydim.types import OutputDtype
from tests.quality.rows import hidden_structure
from tests.texts import SENTENCES

FULL = Form(64, OutputDtype.FLOAT32)


@pytest.mark.parametrize("dim", [5, 64])
def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    monkeypatch.setattr("anydim.quality.nearest._BLOCK", 37)  # so that blocks are merged
    rows_ND = hidden_structure(200, 64)
    found_QK = nearest(rows_ND[:20], rows_ND, Form(dim, OutputDtype.FLOAT32), 7).numpy()
    other = NearestNeighbors(n_neighbors=7, metric="cosine").fit(rows_ND[:, :dim])
    np.testing.assert_array_equal(found_QK, other.kneighbors(rows_ND[:20, :dim], return_distance=False))
    own_Q = torch.arange(20)
    without_QK = nearest(rows_ND[:20], rows_ND, Form(dim, OutputDtype.FLOAT32), 6, own_Q).numpy()
    np.testing.assert_array_equal(without_QK, found_QK[:, 1:])


@given(st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any), st.permutations(range(12)))
def test_ndcg_is_that_of_scikit_learn(gains: list[int], order: list[int]) -> None:
    labels = {place: gain for place, gain in enumerate(gains) if gain}
    found = judged(np.array([order]), [labels], 10)
    scores = np.zeros(12)
    scores[order] = np.arange(12, 0, -1)
    # scikit-learn's gains are linear as trec_eval's are.
    assert found["ndcg"][0] == pytest.approx(ndcg_score([gains], [scores], k=10))
    assert found["recall"][0] == pytest.approx(len(set(order[:10]) & set(labels)) / len(labels))


@pytest.mark.parametrize("dtype", [*DTYPES, OutputDtype.UINT8, OutputDtype.UBINARY])
def test_a_form_is_what_the_engine_answers(minilm_folder: str, dtype: OutputDtype) -> None:
    with Embedder(str(minilm_folder), dtype="float32", threads=1) as embedder:
        full_ND = torch.from_numpy(embedder.embed(SENTENCES, output_dim=384))
        answered = embedder.embed(SENTENCES, output_dim=64, output_dtype=dtype)
        stored = answered.nbytes // len(SENTENCES)
    if dtype in (OutputDtype.BINARY, OutputDtype.UBINARY):
        signed = dtype is OutputDtype.BINARY
        packed = (answered.astype(np.int16) + 128).astype(np.uint8) if signed else answered
        answered = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    read = answered.astype(np.float32) - (128 if dtype is OutputDtype.UINT8 else 0)
    read /= np.linalg.norm(read, axis=1, keepdims=True)
    form = Form(64, dtype)
    np.testing.assert_allclose(in_form(full_ND, form).numpy(), read, atol=2e-3)
    assert form.bytes == stored


def test_bits_are_those_of_sentence_transformers() -> None:
    rows_ND = hidden_structure(50, 64).numpy()
    bits = np.unpackbits(quantize_embeddings(rows_ND, precision="ubinary"), axis=1)
    found_Nd = in_form(torch.from_numpy(rows_ND), Form(64, OutputDtype.BINARY)).numpy()
    np.testing.assert_array_equal(found_Nd > 0, bits.astype(bool))


def test_agreement_of_full_vectors_with_themselves_is_complete() -> None:
    rows = Rows(hidden_structure(300, 64))
    for task in (agreement(Rows(rows.plain_ND[:30]), rows, 10), sampled(rows, 10, 40)):
        assert task.measure(FULL).value == 1
        assert task.measure(Form(32, OutputDtype.FLOAT32)).value < 1
    assert sampled(rows, 10, 10_000).count == 300


def test_more_components_of_ordered_rows_agree_more() -> None:
    strengths = 0.9 ** torch.arange(64, dtype=torch.float32)
    rows = Rows(torch.nn.functional.normalize(torch.randn(400, 64) * strengths))
    task = sampled(rows, 10, 100)
    found = [task.measure(Form(dim, OutputDtype.FLOAT32)).value for dim in (8, 16, 32, 64)]
    assert found == sorted(found)


def test_pairs_are_scored_as_sentence_transformers_scores_them(minilm_folder: str) -> None:
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    first = [*SENTENCES, *SENTENCES[:4]]
    second = [*SENTENCES[1:], SENTENCES[0], *SENTENCES[:4]]
    scores = [0.1 * place for place in range(8)] + [4.0, 5.0, 4.5, 3.0]
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    expected = EmbeddingSimilarityEvaluator(first, second, scores, main_similarity="cosine")(model)["spearman_cosine"]
    task = Pairs(
        first=Rows(model.encode(first, convert_to_tensor=True)),
        second=Rows(model.encode(second, convert_to_tensor=True)),
        scores_P=np.array(scores),
    )
    outcome = task.measure(Form(384, OutputDtype.FLOAT32))
    assert outcome.value == pytest.approx(expected, abs=1e-6)
    assert abs(np.median(outcome.resampled_R) - expected) < 0.2


def test_classes_are_told_apart_as_scikit_learn_does_it() -> None:
    labels_N = numbered(["red", "blue", "green"] * 60)
    rows_ND = torch.nn.functional.normalize(torch.randn(180, 64) + 0.4 * torch.eye(64)[torch.from_numpy(labels_N)] * 8)
    outcome = Classification(documents=Rows(rows_ND), labels_N=labels_N).measure(FULL)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_score(LogisticRegression(max_iter=200), rows_ND.numpy(), labels_N, cv=folds).mean()
    assert outcome.value == pytest.approx(expected)
    assert outcome.metrics["macro_f1"] > 0.8


def test_clusters_are_judged_as_scikit_learn_does_it() -> None:
    labels_N = numbered([place % 4 for place in range(200)])
    rows_ND = torch.nn.functional.normalize(torch.randn(200, 64) * 0.05 + torch.eye(64)[torch.from_numpy(labels_N)])
    outcome = Clustering(documents=Rows(rows_ND), labels_N=labels_N).measure(FULL)
    assert outcome.value == pytest.approx(1)
    mixed = Clustering(documents=Rows(hidden_structure(200, 64)), labels_N=labels_N).measure(FULL)
    assert mixed.value < 0.2
    assert abs(np.mean(mixed.resampled_R) - mixed.value) < 0.1


@given(st.integers(0, 2**31))
def test_v_measure_of_a_table_is_that_of_scikit_learn(seed: int) -> None:
    from anydim.quality.classes import _entropy

    draw = np.random.default_rng(seed)
    first_N, second_N = draw.integers(0, 4, 60), draw.integers(0, 3, 60)
    table = np.zeros((1, 4, 3))
    np.add.at(table[0], (first_N, second_N), 1 / 60)
    labels, clusters = _entropy(table.sum(axis=2)), _entropy(table.sum(axis=1))
    shared = labels + clusters - _entropy(table.reshape(1, -1))
    assert (2 * shared / (labels + clusters))[0] == pytest.approx(v_measure_score(first_N, second_N), abs=1e-9)


def test_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(1).random(200)
    full = np.clip(values + np.random.default_rng(2).normal(0.1, 0.1, 200), 0.01, None)
    drawn = draws(200)
    found = ratio(values.mean(), full.mean(), means(values, drawn), means(full, drawn))
    expected = stats.bootstrap(
        (values, full), lambda a, b, axis: a.mean(axis) / b.mean(axis), paired=True, method="percentile", rng=3
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.01)
    assert found.high == pytest.approx(expected.high, abs=0.01)
    assert found.low < found.value < found.high


def test_dimensions() -> None:
    assert allowed_dims(100, 32) == [32, 64, 96, 100]
    assert chosen_dims([], 64, 32) == [32, 64]
    assert chosen_dims([64, 32, 64], 100, 32) == [32, 64]
    assert ladder(384, 32) == [32, 64, 96, 128, 192, 256]
    assert distinct(list(OutputDtype)) == list(DTYPES)
