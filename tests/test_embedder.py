"""The library's front door gives sentence-transformers' vectors and refuses what the server refuses."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import normalize_embeddings

from anydim import Embedder
from anydim.errors import ComputeFailed, ConfigError, InvalidRequest, ModelError, TooLong, Unavailable
from anydim.testing import FakeModel, client
from tests.checkpoints import add_tensor, edit_json
from tests.shelf import Shelf, load_reference

TEXTS = ["The capital of China is Beijing.", "北京是中国的首都。", "", "def f(x): return x", "\U0001f600 emoji"]


@pytest.fixture(scope="module")
def embedder(minilm_folder: Path) -> Iterator[Embedder]:
    with Embedder(str(minilm_folder), dtype="float32", show_progress=False) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm_folder), device="cpu")


@pytest.mark.parametrize("dim", [32, 96, 384])
def test_vectors_are_those_of_sentence_transformers(
    embedder: Embedder, reference: SentenceTransformer, dim: int
) -> None:
    vectors = embedder.embed(TEXTS, output_dim=dim)
    assert vectors.shape == (len(TEXTS), dim)
    assert vectors.dtype == np.float32
    full = reference.encode(TEXTS, convert_to_tensor=True)
    assert np.abs(vectors - normalize_embeddings(full[:, :dim]).numpy()).max() <= 1e-5


def test_one_text_gives_one_vector(embedder: Embedder) -> None:
    assert np.array_equal(embedder.embed(TEXTS[0]), embedder.embed(TEXTS[:1])[0])


def test_mixed_dimensions_give_a_list(embedder: Embedder) -> None:
    mixed = embedder.embed(TEXTS[:2], output_dim=[32, 384])
    assert [row.shape for row in mixed] == [(32,), (384,)]


@pytest.mark.parametrize(("dtype", "numpy"), [("float16", "f2"), ("int8", "i1"), ("uint8", "u1"), ("ubinary", "u1")])
def test_output_types(embedder: Embedder, dtype: str, numpy: str) -> None:
    vectors = embedder.embed(TEXTS, output_dim=64, output_dtype=dtype)
    assert vectors.dtype == np.dtype(numpy)
    assert vectors.shape == (len(TEXTS), 8 if dtype == "ubinary" else 64)


def test_the_async_twin_answers_many_at_once(embedder: Embedder) -> None:
    async def ask() -> list[np.ndarray]:
        return await asyncio.gather(*(embedder.aembed(TEXTS, output_dim=32 * (1 + turn)) for turn in range(12)))

    for turn, vectors in enumerate(asyncio.run(ask())):
        assert np.allclose(vectors, embedder.embed(TEXTS, output_dim=32 * (1 + turn)), atol=1e-6)


def test_a_long_list_comes_back_in_order(embedder: Embedder) -> None:
    texts = [f"text number {place} " + "word " * (place % 40) for place in range(1500)]
    some = [0, 255, 256, 777, 1499]
    vectors = embedder.embed(texts, output_dim=64)
    assert np.abs(vectors[some] - embedder.embed([texts[place] for place in some], output_dim=64)).max() < 1e-5


def test_refusals_are_those_of_the_server(embedder: Embedder) -> None:
    with client(FakeModel(width=384)) as http:
        for fields in ({"output_dim": 50}, {"output_dim": [32]}, {"truncate": "middle"}):
            answer = http.post("/v1/embeddings", json={"input": ["a", "b"], **fields})
            with pytest.raises(InvalidRequest) as caught:
                embedder.embed(["a", "b"], **fields)
            assert answer.status_code == 400
            assert caught.value.param == answer.json()["error"]["param"]
        message = http.post("/v1/embeddings", json={"input": "a", "output_dim": 50}).json()["error"]["message"]
    with pytest.raises(InvalidRequest) as caught:
        embedder.embed("a", output_dim=50)
    assert caught.value.message == message


def test_a_long_text_is_refused_with_its_place_and_counts_or_cut(embedder: Embedder) -> None:
    texts = ["short"] * 300 + ["word " * 400]
    with pytest.raises(TooLong, match=r"input\[300\] has 402 tokens, but the model reads 256"):
        embedder.embed(texts)
    assert embedder.embed(texts, truncate="end").shape == (301, 384)
    assert embedder.embed("still alive").shape == (384,)


def test_a_prompt_goes_before_the_text(shelf: Shelf) -> None:
    folder = shelf.folder("qwen3")
    expected = SentenceTransformer(str(folder), device="cpu").encode(
        ["hello"], prompt="Instruct: Find greetings\nQuery:", convert_to_numpy=True
    )
    with Embedder(str(folder), dtype="float32", show_progress=False) as embedder:
        assert np.abs(embedder.embed(["hello"], instruction="Find greetings") - expected).max() <= 1e-5


def test_a_projection_turns_vectors_before_the_cut(
    tmp_path: Path, minilm_folder: Path, reference: SentenceTransformer
) -> None:
    rotation = torch.linalg.qr(torch.randn(384, 384, generator=torch.Generator().manual_seed(1)))[0].contiguous()
    save_file({"rotation": rotation}, tmp_path / "fitted.safetensors")
    full = reference.encode(TEXTS, convert_to_tensor=True)
    expected = normalize_embeddings((full @ rotation)[:, :64]).numpy()
    with Embedder(
        str(minilm_folder), dtype="float32", projection=str(tmp_path / "fitted.safetensors"), show_progress=False
    ) as embedder:
        assert np.abs(embedder.embed(TEXTS, output_dim=64) - expected).max() <= 1e-5


def test_the_starter_model_is_the_default(starter_folder: Path) -> None:
    with Embedder(cache=str(starter_folder.parent), show_progress=False) as embedder:
        assert embedder.card.name == "starter-multilingual-e5-small"
        question, right, wrong = embedder.embed(
            ["query: Wie heißt die Hauptstadt von China?", "passage: 北京是中国的首都。", "passage: The cat sleeps."]
        )
    assert question @ right > question @ wrong


def test_settings_and_models_that_do_not_exist_are_named() -> None:
    with pytest.raises(ConfigError, match="dtype"):
        Embedder(dtyp="float32")
    with pytest.raises(ModelError, match="no/such"):
        Embedder("./no/such")


def test_a_loaded_model_is_not_walked_by_the_collector_until_it_is_closed(minilm_folder: Path) -> None:
    embedder = Embedder(str(minilm_folder), dtype="float32", show_progress=False)
    assert gc.get_freeze_count() > 0
    embedder.close()
    assert gc.get_freeze_count() == 0


def test_a_closed_embedder_says_so(minilm_folder: Path) -> None:
    embedder = Embedder(str(minilm_folder), show_progress=False)
    embedder.close()
    with pytest.raises(Unavailable):
        embedder.embed("a")


def test_the_same_failure_reads_the_same_each_time(tmp_path: Path, shelf: Shelf) -> None:
    folder = tmp_path / "nan"
    shutil.copytree(shelf.folder("bert-mean"), folder)
    add_tensor(folder, "embeddings.LayerNorm.weight", torch.full((60,), float("nan")))
    with Embedder(str(folder), dtype="float32", show_progress=False) as embedder:
        messages = set()
        for _ in range(3):
            with pytest.raises(ComputeFailed) as caught:
                embedder.embed(["a"])
            messages.add(str(caught.value))
    assert messages == {"input[0]: the model gave no finite vector for this input"}


def test_numpy_dimensions_are_dimensions(embedder: Embedder) -> None:
    assert embedder.embed("a", output_dim=np.int64(64)).shape == (64,)
    assert [len(row) for row in embedder.embed(["a", "b"], output_dim=np.array([32, 64]))] == [32, 64]


def test_white_space_before_a_text_does_not_hide_it(embedder: Embedder) -> None:
    plain = embedder.embed("hello")
    assert np.allclose(embedder.embed(" " * 70_000 + "hello", truncate="end"), plain, atol=1e-6)
    assert np.allclose(embedder.embed(" " * 70_000 + "hello"), plain, atol=1e-6)


def test_a_folder_that_asks_for_lower_case_gets_it(tmp_path: Path, starter_folder: Path) -> None:
    folder = tmp_path / "lower"
    shutil.copytree(starter_folder, folder)
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    expected = load_reference(folder).encode(["HELLO World"], convert_to_numpy=True)
    with Embedder(str(folder), dtype="float32", show_progress=False) as embedder:
        assert np.abs(embedder.embed(["HELLO World"]) - expected).max() <= 1e-5
