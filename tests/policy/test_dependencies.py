"""Dependencies are pinned, tested and without known holes; on the real environment and on planted ones."""

import importlib.util
from importlib import metadata
from typing import Final

import pytest

from .sources import ROOT, report

if importlib.util.find_spec("packaging") is None:
    pytest.skip("packaging comes with the test extra", allow_module_level=True)

from packaging.version import Version

from .dependencies import bounds_that_admit_holes, installed, known_holes, pins, unpinned, with_holes

EXTRAS: Final = ("test", "lint", "fuzz")


def test_what_is_installed_is_what_is_pinned() -> None:
    found = installed(EXTRAS, metadata.distribution)
    assert len(found) > 40
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert not (wrong := unpinned(found, pinned)), report(
        wrong, "Pin it in constraints.txt, or install what is pinned."
    )


def test_nothing_installed_or_pinned_has_a_known_hole() -> None:
    found = installed(EXTRAS, metadata.distribution)
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    wrong = [*with_holes(found, known_holes()), *with_holes(pinned, known_holes())]
    assert not wrong, report(wrong, "Take a newer version, in constraints.txt and here.")


def test_no_bound_admits_a_version_with_a_known_hole() -> None:
    wrong = bounds_that_admit_holes((ROOT / "pyproject.toml").read_text(encoding="utf-8"), known_holes())
    assert not wrong, report(wrong, "Raise the bound in pyproject.toml.")


def test_planted_faults_are_found() -> None:
    found = {"starlette": Version("0.40.0"), "new": Version("1"), "torch": Version("2.13.0+cpu")}
    pinned = pins("# words\nStarlette==0.41.0  # why\ntorch==2.13.0\n")
    assert [line.split()[0] for line in unpinned(found, pinned)] == ["new", "starlette"]
    assert with_holes(found, known_holes()) == [
        "starlette 0.40.0 has a hole: CVE-2024-47874, CVE-2025-54121, CVE-2025-62727"
    ]
    project = '[project]\ndependencies = ["h11>=0.14"]\n[project.optional-dependencies]\nx = ["torch>=2.6"]\n'
    assert len(bounds_that_admit_holes(project, known_holes())) == 1
