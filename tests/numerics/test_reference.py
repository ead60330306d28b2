"""Law 1: ours = reference. sentence-transformers on the same files in float32; largest difference 1e-5 on unit vectors.

The reference runs one text at a time, so that no padding of its own is in the comparison.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from anydim.intake.request import InputType
from tests.pipeline import Pipeline
from tests.shelf import CHECKPOINTS, Shelf, load_reference
from tests.texts import EDGES, LONG, SENTENCES, declaration_articles

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXTS = (*SENTENCES, *(text for text in EDGES if "<pad>" not in text), LONG)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def starter(starter_folder: Path) -> Pipeline:
    """The starter model in anydim."""
    return Pipeline(starter_folder)


@pytest.fixture(scope="module")
def starter_reference(starter_folder: Path) -> "SentenceTransformer":
    """The starter model in sentence-transformers."""
    return load_reference(starter_folder)


def assert_same(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Whether two sets of vectors are the same unit vectors."""
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)
    gap = float(np.abs(ours - theirs).max())
    assert gap <= TOLERANCE


def encode(reference: "SentenceTransformer", texts: list[str] | tuple[str, ...], **how: str) -> NDArray[np.float32]:
    """The reference's unit vectors, one text at a time."""
    return np.asarray(reference.encode(list(texts), batch_size=1, normalize_embeddings=True, **how))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_ours_is_reference(shelf: Shelf, name: str) -> None:
    assert_same(shelf.ours(name).embed(TEXTS), encode(shelf.reference(name), TEXTS))


@pytest.mark.parametrize("name", ["qwen3-real-vocabulary", "qwen3", "bert-cls", "roberta-mean", "xlm-roberta-max"])
def test_control_tokens_in_a_text_are_read_as_the_reference_reads_them(shelf: Shelf, name: str) -> None:
    texts = [text for text in EDGES if "<pad>" in text]
    assert_same(shelf.ours(name).embed(texts), encode(shelf.reference(name), texts))


@pytest.mark.parametrize("name", ["qwen3-real-vocabulary", "xlm-roberta-mean"])
def test_real_sentences_in_twenty_languages(shelf: Shelf, name: str) -> None:
    texts = declaration_articles()[::9]
    assert_same(shelf.ours(name).embed(texts), encode(shelf.reference(name), texts))


def test_trained_english_model(minilm_folder: Path) -> None:
    texts = (*SENTENCES, *EDGES, LONG)
    ours, theirs = Pipeline(minilm_folder).embed(texts), encode(load_reference(minilm_folder), texts)
    assert_same(ours, theirs)


def test_starter_model(starter: Pipeline, starter_reference: "SentenceTransformer") -> None:
    texts = (*TEXTS[:-1], LONG[:3000], *declaration_articles()[::61])
    assert_same(starter.embed(texts), encode(starter_reference, texts))


@pytest.mark.parametrize("prompt", ["query", "document"])
def test_starter_prompts(starter: Pipeline, starter_reference: "SentenceTransformer", prompt: str) -> None:
    ours = starter.embed(SENTENCES, prompt_name=prompt)
    assert_same(ours, encode(starter_reference, SENTENCES, prompt_name=prompt))


@pytest.mark.parametrize("name", ["query", "document"])
def test_prompt_names_are_those_of_the_reference(shelf: Shelf, name: str) -> None:
    ours = shelf.ours("qwen3-real-vocabulary").embed(TEXTS, prompt_name=name)
    theirs = encode(shelf.reference("qwen3-real-vocabulary"), TEXTS, prompt_name=name)
    assert_same(ours, theirs)


def test_input_type_query_is_the_query_prompt(shelf: Shelf) -> None:
    ours = shelf.ours("qwen3-real-vocabulary").embed(SENTENCES, input_type=InputType.QUERY)
    theirs = encode(shelf.reference("qwen3-real-vocabulary"), SENTENCES, prompt_name="query")
    assert_same(ours, theirs)


def test_instruction_is_the_documented_prompt(shelf: Shelf) -> None:
    ours = shelf.ours("qwen3-real-vocabulary").embed(SENTENCES, instruction="Find the law that applies")
    theirs = encode(
        shelf.reference("qwen3-real-vocabulary"), SENTENCES, prompt="Instruct: Find the law that applies\nQuery:"
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["qwen3", "bert-mean"])
def test_lower_dimensions_are_the_references_truncation(shelf: Shelf, name: str) -> None:
    ours = shelf.ours(name).embed(SENTENCES, output_dim=32)
    theirs = shelf.reference(name).encode(list(SENTENCES), batch_size=1, truncate_dim=32, normalize_embeddings=True)
    assert_same(ours, np.asarray(theirs))


@pytest.mark.parametrize("name", ["qwen3", "xlm-roberta-mean", "bert-max"])
def test_folders_that_the_reference_wrote_itself(shelf: Shelf, name: str, tmp_path: Path) -> None:
    reference = shelf.reference(name)
    reference.save(str(tmp_path / "saved"))
    assert_same(Pipeline(tmp_path / "saved").embed(TEXTS), encode(reference, TEXTS))
