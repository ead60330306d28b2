"""`anydim check`: the verdict on models whose worth is known, on a running server, and on the user's own queries."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from anydim.cli.main import make_program
from tests.server.process import ServerProcess
from tests.shelf import Shelf

DOCUMENTS = {
    "a": "Penguins are birds that cannot fly.",
    "b": "A volcano throws out lava.",
    "c": "Bread is made of flour.",
}


def invoke(*words: str) -> Result:
    return CliRunner().invoke(make_program(), ["check", *words])


def findings_of(done: Result) -> dict[str, dict]:
    assert done.exit_code in (0, 1), done.output
    return {f"{row['step']}: {row['name']}": row for row in json.loads(done.output)["findings"]}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Documents, queries and labels of a user."""
    folder = tmp_path_factory.mktemp("own")
    rows = [json.dumps({"id": name, "text": text}) for name, text in DOCUMENTS.items()]
    (folder / "docs.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "queries.txt").write_text("birds of the south pole\nbaking\n")
    (folder / "qrels.txt").write_text("0 0 a 1\n1 0 c 1\n")
    given = {"--corpus": "docs.jsonl", "--queries": "queries.txt", "--qrels": "qrels.txt"}
    return tuple(word for flag, name in given.items() for word in (flag, str(folder / name)))


@pytest.fixture(scope="module")
def server(minilm_folder: Path) -> Iterator[ServerProcess]:
    """A running server of all-MiniLM-L6-v2 that asks for a key."""
    running = ServerProcess("--model", str(minilm_folder), "--dtype", "float32", "--api-key", "secret")
    yield running
    running.stop()


def test_a_multilingual_model_tells_meanings_apart_in_both_languages(starter_folder: Path) -> None:
    found = findings_of(invoke("--model", str(starter_folder), "--threads", "1", "--json"))
    for name in ("1 synonyms: English", "2 translations: Chinese and English"):
        assert found[name]["passed"], found[name]
        assert found[name]["figures"]["auc"] > 0.95
    assert found["self-check: prompts are applied"]["passed"]
    assert found["self-check: parity with sentence-transformers"]["passed"]
    told = [
        row["figures"]["found_forth"] for name, row in found.items() if row["passed"] is None and "English and" in name
    ]
    assert len(told) == 19
    assert sum(told) / 19 > 0.8


def test_an_english_model_fails_across_languages_with_figures(
    minilm_folder: Path, own: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("--model", str(minilm_folder), "--dtype", "float32", "--threads", "1", "--synonyms", "0.8")
    done = invoke(*words, *own, "--html", str(tmp_path / "check.html"))
    assert done.exit_code == 1
    assert "PASS  1 synonyms: English" in done.output
    assert "FAIL  2 translations: Chinese and English" in done.output
    assert "is below 0.75" in done.output
    assert "birds of the south pole  [found]" in done.output
    assert "1  0." in done.output
    assert "recall_at_1 1, recall_at_3 1" in done.output
    assert done.output.endswith("Failed.\n")
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "failed</h1>" in page
    assert DOCUMENTS["a"] in page
    assert "http" not in page.replace('content="width', "")


def test_a_random_model_keeps_every_law_and_means_nothing(shelf: Shelf) -> None:
    found = findings_of(invoke("--model", str(shelf.folder("bert-mean")), "--dtype", "float32", "--json"))
    laws = {name: row["passed"] for name, row in found.items() if name.startswith("self-check")}
    assert laws.pop("self-check: prompts are applied") is None
    assert len(laws) == 5
    assert all(laws.values()), found
    assert found["1 synonyms: Chinese"]["passed"] is False


def test_a_running_server_is_checked_by_its_url(server: ServerProcess, own: tuple[str, ...]) -> None:
    words = ("--url", server.address + "/v1", *own, "--synonyms", "0.8", "--json")
    refused = invoke(*words)
    assert refused.exit_code == 1
    assert "is --api-key right?" in refused.output
    found = findings_of(invoke(*words, "--api-key", "secret"))
    assert found["1 synonyms: English"]["passed"]
    assert found["self-check: dimension d = first d components, scaled to length one"]["figures"]["d32"] > 0.99999
    assert found["3 own search: 2 queries"]["figures"]["recall_at_1"] == 1


def test_what_must_be_reached_is_a_setting(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """all-MiniLM-L6-v2 reaches 0.837 with English synonyms: it fails by default, and passes what asks for less."""
    file = tmp_path / "check.toml"
    file.write_text("synonyms = 0.99\ntranslations = 0\nseparation = 0\nfound = 0\n")
    model = ("--model", str(minilm_folder), "--dtype", "float32", "--threads", "1", "--json")
    words = (*model, "--config", str(file))
    in_file = invoke(*words)
    assert in_file.exit_code == 1
    assert "is below 0.99" in findings_of(in_file)["1 synonyms: English"]["words"]
    assert findings_of(in_file)["2 translations: Chinese and English"]["passed"]
    monkeypatch.setenv("ANYDIM_SYNONYMS", "0.3")
    assert invoke(*words).exit_code == 0
    assert "is below 0.9" in findings_of(invoke(*words, "--synonyms", "0.9"))["1 synonyms: English"]["words"]


@pytest.mark.parametrize("value", ["1.5", "-0.1", "much"])
def test_a_share_lies_between_none_and_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    said = f"must be a number from 0 to 1, got '{value}'"
    refused = invoke("--found", value)
    assert (refused.exit_code, f"--found {said}" in refused.output) == (2, True)
    monkeypatch.setenv("ANYDIM_SEPARATION", value)
    assert f"ANYDIM_SEPARATION {said}" in invoke().output
    monkeypatch.delenv("ANYDIM_SEPARATION")
    file = tmp_path / "check.toml"
    file.write_text("synonym = 0.8\n")
    assert "unknown key synonym (did you mean synonyms?)" in invoke("--config", str(file)).output


def test_what_does_not_fit_is_refused(own: tuple[str, ...]) -> None:
    assert "must start with http:// or https://" in invoke("--url", "localhost:30000").output
    nobody = invoke("--url", "http://127.0.0.1:9")
    assert nobody.exit_code == 1
    assert "does not answer" in nobody.output
    assert "--corpus needs --queries" in invoke(*own[:2]).output
    assert "--queries needs --corpus" in invoke(*own[2:4]).output
