"""What a front end loads: no torch, no pydantic, and pyarrow only when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("library", ["torch", "pydantic", "pyarrow", "transformers"])
def test_the_application_loads_without(library: str) -> None:
    code = f"import sys, anydim.api.app; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
