"""`anydim fit`: the file that it writes, who takes it, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from anydim import Embedder
from anydim.cli.main import make_program
from anydim.models.rotation import read_rotation
from tests.quality.rows import hidden_structure
from tests.shelf import Shelf

TEXTS = ("a small text", "another one, a little longer", "the last")
THINGS = ("house", "ship", "tree")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(make_program(), ["fit", *words])


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored vectors as wide as the model `bert-mean`."""
    file = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(file, hidden_structure(800, 60).numpy())
    return file


def test_a_fit_from_stored_vectors_is_for_its_model_alone(shelf: Shelf, vectors: Path, tmp_path: Path) -> None:
    file, model = tmp_path / "projection.safetensors", str(shelf.folder("bert-mean"))
    done = invoke("--corpus", str(vectors), "--model", model, "-o", str(file), "--method", "svd")
    assert done.exit_code == 0, done.output
    assert "Use it: it gains at 32 components." in done.output
    facts = json.loads(done.output.splitlines()[-1])
    assert (facts["documents"], facts["held_back"], facts["method"]) == (640, 160, "svd")
    assert [row["dim"] for row in facts["rows"]] == [32, 60]

    with Embedder(model, dtype="float32") as plain, Embedder(model, dtype="float32", projection=str(file)) as fitted:
        full_ND = torch.from_numpy(plain.embed(TEXTS, output_dim=60))
        cut_Nd = torch.nn.functional.normalize((full_ND @ read_rotation(file).rotation_DD)[:, :32])
        torch.testing.assert_close(torch.from_numpy(fitted.embed(TEXTS, output_dim=32)), cut_Nd, atol=1e-5, rtol=0)
        turned_ND = torch.from_numpy(fitted.embed(TEXTS, output_dim=60))
        torch.testing.assert_close(turned_ND @ turned_ND.T, full_ND @ full_ND.T, atol=1e-5, rtol=0)

    where = ("--db", str(tmp_path / "db"), "--model", str(shelf.folder("bert-cls")), "--projection", str(file))
    other = CliRunner().invoke(make_program(), ["search", "x", *where])
    assert other.exit_code == 1
    assert "was fitted for bert-mean and other weights than these of bert-cls" in other.output


def test_a_fit_from_texts_embeds_them(minilm_folder: Path, tmp_path: Path) -> None:
    texts = [
        f"{what} number {place} is {how}"
        for place in range(20)
        for what in ("house", "ship", "tree")
        for how in ("old", "new")
    ]
    corpus = tmp_path / "docs.jsonl"
    corpus.write_text("".join(json.dumps({"id": place, "text": text}) + "\n" for place, text in enumerate(texts)))
    file = tmp_path / "projection.safetensors"
    words = (
        "--corpus",
        str(corpus),
        "--model",
        str(minilm_folder),
        "-o",
        str(file),
        "--method",
        "svd",
        "--threads",
        "1",
    )
    done = invoke(*words, "--dims", "32,64", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["model"] == "model"
    assert not facts["worth_it"]
    assert "24 queries are too few to tell" in facts["advice"]
    assert read_rotation(file).facts["advice"] == facts["advice"]
    assert f"{file} exists; --overwrite replaces it" in invoke(*words).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "stored vectors do not say which model made them: name it with --model"),
        (("--projection", "x.safetensors"), "leave --projection out"),
        (("--dims", "33"), "--dims must be multiples of 32 between 32 and 60, got 33"),
        (("--dims", "many"), "--dims must be numbers separated by commas"),
        (("--qrels", "labels.tsv"), "--qrels needs --queries"),
    ],
)
def test_what_does_not_fit_is_refused(
    vectors: Path, tmp_path: Path, shelf: Shelf, words: tuple[str, ...], said: str
) -> None:
    model = ("--model", str(shelf.folder("bert-mean"))) if "--dims" in words else ()
    done = invoke("--corpus", str(vectors), "-o", str(tmp_path / "out.safetensors"), *words, *model)
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "out.safetensors").exists()


def test_vectors_of_another_width_are_refused(vectors: Path, tmp_path: Path, minilm_folder: Path) -> None:
    done = invoke("--corpus", str(vectors), "--model", str(minilm_folder), "-o", str(tmp_path / "out.safetensors"))
    assert done.exit_code == 1
    assert "vectors.npy holds vectors of 60 components, model has 384" in done.output
