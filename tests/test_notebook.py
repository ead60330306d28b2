"""The notebook runs cell by cell as a stranger would run it, on the starter model, and says what it promises."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.shelf import Shelf

FILE = Path(__file__).parent.parent / "examples" / "three_scenes.ipynb"
MODEL_LINE = re.compile(r"^MODEL = None  #.*$", re.MULTILINE)


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(FILE, as_version=4)


def printed_by(cells: nbformat.NotebookNode, home: Path, cache: Path | None = None) -> str:
    """What all cells print, from a kernel that leaves the user's own folders alone; a cell that fails raises."""
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", connection_file=str(home / "kernel.json"))
    client = NotebookClient(cells, km=kernel, timeout=240, resources={"metadata": {"path": str(home)}})
    own = {"IPYTHONDIR": str(home / "ipython"), "XDG_CACHE_HOME": str(cache or home)}
    done = client.execute(env={**os.environ, **own})
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert all(output.get("name") == "stdout" for output in outputs), outputs  # no warning either
    return "".join(output.text for output in outputs)


@pytest.fixture(scope="module")
def said(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("home")
    (home / "anydim").symlink_to(starter_folder.parent)  # converted once for all tests
    return printed_by(notebook(), home)


def test_it_is_kept_without_outputs() -> None:
    found = nbformat.read(FILE, as_version=nbformat.NO_CONVERT)
    nbformat.validate(found)
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None and cell.metadata == {} for cell in code)
    assert set(found.metadata) == {"kernelspec", "language_info"}


def test_the_scenes_have_the_dimensions_that_the_starter_model_has(said: str) -> None:
    assert "starter-multilingual-e5-small is 384 wide; the scenes have 32, 256 and 384 components" in said
    assert re.findall(r" +(\d+) components, +([\d,]+) bytes, length (1\.0000)", said) == [
        ("32", "128", "1.0000"),
        ("256", "1,024", "1.0000"),
        ("384", "1,536", "1.0000"),
    ]


def test_the_phone_stores_little_and_finds_more_with_more_components(said: str) -> None:
    assert "32 bytes a note, 3.2 MB for 100,000 of them" in said
    assert "at full width in float32 they would take 153.6 MB" in said
    rows = re.findall(r"(\d+) components: right first for (\d) of 6 questions, among three for (\d)", said)
    assert [int(dim) for dim, _, _ in rows] == [32, 64, 128, 384]
    assert int(rows[-1][1]) > int(rows[0][1])
    assert (int(rows[0][2]) >= 3, int(rows[-1][2])) == (True, 6)


def test_the_handbook_answers_in_two_languages(said: str) -> None:
    for question in ("How many days off do I get?", "生病了需要医生证明吗？"):
        hits = said[said.index(question) :].splitlines()[1:4]
        assert any("<- right" in hit for hit in hits), hits
    assert int(re.search(r"with 384 components it is first for (\d)", said).group(1)) == 6


def test_more_components_keep_more_of_the_order(said: str) -> None:
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+)% +(\d\.\d+)$", said, re.MULTILINE)
    assert [(int(dim), int(size)) for dim, size, _, _ in rows] == [(32, 128), (64, 256), (256, 1024), (384, 1536)]
    assert [float(order) for *_, order in rows] == sorted(float(order) for *_, order in rows)
    assert rows[-1][2:] == ("100", "1.000")


def test_the_checks_pass(said: str) -> None:
    laws = re.findall(r"cosine at least (\d\.\d+)", said)
    assert len(laws) == 4
    assert min(map(float, laws)) >= 0.999
    for line in ("1 synonyms: English", "1 synonyms: Chinese", "2 translations: Chinese and English"):
        assert f"PASS  {line}: cosine 0.9" in said or f"PASS  {line}: cosine 0.8" in said
    assert "3 own search: 6 queries" in said
    assert "PASS  self-check: batch = single" in said
    assert "All that is judged has passed." in said


def test_one_line_changed_serves_the_wide_model(shelf: Shelf, tmp_path: Path) -> None:
    """The width of Qwen3-Embedding-4B, with random weights: everything but the check of what a model has learned."""
    found = notebook()
    assert any('MODEL = "Qwen/Qwen3-Embedding-4B"' in cell.source for cell in found.cells)
    assert sum(len(MODEL_LINE.findall(cell.source)) for cell in found.cells) == 1
    for cell in found.cells:
        cell.source = MODEL_LINE.sub(f"MODEL = {str(shelf.folder('qwen3-2560'))!r}", cell.source)
    found.cells = [cell for cell in found.cells if '"check"' not in cell.source]
    said = printed_by(found, tmp_path)
    assert "2560 wide; the scenes have 32, 1024 and 2560 components" in said
    assert min(map(float, re.findall(r"cosine at least (\d\.\d+)", said))) >= 0.999


def test_a_cell_that_fails_is_noticed(tmp_path: Path) -> None:
    cells = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise SystemError('on purpose')")])
    with pytest.raises(CellExecutionError, match="on purpose"):
        printed_by(cells, tmp_path)
