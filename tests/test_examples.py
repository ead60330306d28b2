"""The examples run as they stand, on the starter model; their reranker has random weights."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.testclient import TestClient

from tests.shelf import Shelf

FOLDER = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_search_through_langchain(
    starter_folder: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["langchain_search.py", "--model", str(starter_folder), "--reranker", str(shelf.folder("cross-bert"))]
    monkeypatch.setattr("sys.argv", words)
    example = load("langchain_search")
    example.main()
    lines = capsys.readouterr().out.splitlines()
    for place in (0, 3):
        assert lines[place] in ("through_a_vector_store", "through_an_index")
        found = [line.split("  ")[-1] for line in lines[place + 1 : place + 3]]
        assert set(found) <= set(example.PAGES.values())
        scores = [float(line.split()[0]) for line in lines[place + 1 : place + 3]]
        assert scores == sorted(scores, reverse=True)


def test_search_through_fastapi(starter_folder: Path, shelf: Shelf) -> None:
    example = load("fastapi_search")
    with TestClient(example.make_app(str(starter_folder), str(shelf.folder("cross-bert")))) as client:
        found = client.post("/search", json={"query": "How do I put a list in order?", "top_n": 3}).json()
    assert len(found) == 3
    assert example.PAGES[0] in {row["document"] for row in found}  # the first two stages run on trained weights
    scores = [row["relevance_score"] for row in found]
    assert scores == sorted(scores, reverse=True)
