"""Headless Chromium, from where the system has it, and a server on the starter model. Nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import ServerProcess, serving

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Of the module: playwright keeps an event loop running in this thread, which other tests must not meet.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; each page of it has a fresh profile."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed here: `make browser` installs Debian's")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright comes with the test extra")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A desktop page in English, which fails the test where a script does or where it asks anyone but the server."""
    yield from opened(chromium, {"width": 1280, "height": 900}, "en-US")


@pytest.fixture
def phone(chromium: Any) -> Iterator[Any]:
    """The same, as wide as a phone, in Chinese."""
    yield from opened(chromium, {"width": 390, "height": 844}, "zh-CN")


def opened(chromium: Any, size: dict[str, int], language: str) -> Iterator[Any]:
    context = chromium.new_context(viewport=size, locale=language)
    found = context.new_page()
    wrong: list[str] = []
    asked: set[str] = set()
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda line: wrong.append(line.text) if "Security Policy" in line.text else None)
    found.on("request", lambda request: asked.add(request.url.split("/")[2]))
    yield found
    context.close()
    assert not wrong
    assert len(asked) <= 1


@pytest.fixture(scope="session")
def starter(starter_folder: Path) -> Iterator[ServerProcess]:
    """A server on the starter model."""
    with serving(starter_folder) as server:
        yield server
