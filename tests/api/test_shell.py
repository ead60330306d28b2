"""The static files of the page: who may read them, what they may load, and that both languages say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from anydim import testing
from anydim.api import shell
from anydim.api.shell import FILES, SHELL_PATHS

FOLDER = Path(shell.__file__).with_name("page")
SCRIPTS = sorted(FOLDER.glob("*.js"))
MOST_BYTES = 100_000


@pytest.mark.parametrize("path", sorted(SHELL_PATHS))
def test_each_file_is_served_strictly_and_without_a_key(path: str) -> None:
    with testing.client(api_key=["k"]) as http:
        answer = http.get(path)
        assert http.head(path).status_code == 200
    name = path.rpartition("/")[2] or "index.html"
    assert answer.content == (FOLDER / name).read_bytes()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("main.js", "text/javascript"), ("style.css", "text/css"), ("zh.json", "application/json")],
)
def test_browsers_are_told_what_each_file_is(http: TestClient, name: str, kind: str) -> None:
    assert http.get(f"/page/{name}").headers["Content-Type"].startswith(kind)


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "../shell.py", "..%2fshell.py", "", "%00"])
def test_nothing_else_is_served(http: TestClient, name: str) -> None:
    assert http.get(f"/page/{name}").status_code == 404


def test_the_page_works_under_a_prefix_too(http: TestClient) -> None:
    addresses = re.findall(r'(?:href|src)="([^"]+)"', http.get("/").text)
    assert len(addresses) > 3
    assert not [address for address in addresses if address.startswith("/") or ":" in address]


def test_every_file_that_is_named_exists() -> None:
    index = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'"page/([\w.]+)"', index)) | {"en.json", "zh.json"}
    for script in SCRIPTS:
        named |= set(re.findall(r'from "\./([\w.]+)"', script.read_text(encoding="utf-8")))
    assert named == set(FILES)


def test_the_page_is_small_and_its_files_are_short() -> None:
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_say_what_they_do_and_make_no_html_of_text(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3\.org/2000/svg)",
        text,
    )


def test_the_shell_has_no_inline_script_or_style() -> None:
    index = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", index)


def words(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return found


def test_both_languages_have_the_same_words_and_fill_in_the_same_values() -> None:
    english, chinese = words("en"), words("zh")
    assert list(english) == list(chinese)
    for key, sentence in english.items():
        assert set(re.findall(r"{\w+}", sentence)) == set(re.findall(r"{\w+}", chinese[key])), key
        assert chinese[key].strip()


def test_every_word_is_used_and_every_used_one_is_there() -> None:
    sources = [file.read_text(encoding="utf-8") for file in [*SCRIPTS, FOLDER / "index.html"]]
    marked = {word for text in sources for word in re.findall(r'data-words="([^"]+)"', text)}
    said = {word for text in sources for word in re.findall(r'\bsay\("([^"]+)"', text)}
    everything = "\n".join(sources)
    assert marked | said <= words("en").keys()
    for key in words("en"):
        bare = re.sub(r"^(metric|problem)-", "", key).removesuffix("-soon")
        assert re.search(rf'["\s]{re.escape(key)}"|["\s]{re.escape(bare)}["\s:]|{bare}: memory', everything), key


def test_the_list_of_models_says_what_a_slider_needs(http: TestClient) -> None:
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["width"], model["dim_step"], model["default_dim"]) == (64, 32, 64)
