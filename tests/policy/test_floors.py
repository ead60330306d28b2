"""Imports point downward and the upper floors load without torch: on the real package and on planted ones."""

from pathlib import Path

import pytest

from .floors import imports_point_downward, light_modules, loads_nothing_heavy
from .sources import ROOT, Source, plant, report


def test_imports_point_downward(package: list[Source]) -> None:
    found = imports_point_downward(package)
    assert not found, report(found, "Move what is shared to a lower floor or to types.py, or let an entrance compose.")


def test_light_modules_load_without_torch(paths: list[str]) -> None:
    modules = light_modules(paths)
    assert modules, "the package has nothing to import"
    if any(path.startswith("anydim/api/") for path in paths):
        assert any(name.startswith("anydim.api") for name in modules), "no module of api/ was found"
    found = loads_nothing_heavy(ROOT, modules)
    assert not found, report(found, "Import it inside the function that needs it, or move the code below intake/.")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("intake/x.py", "from anydim.api import app"),
        ("intake/x.py", "from ..api.app import build"),
        ("engine/x.py", "import anydim.intake.prompts"),
        ("models/x.py", "    from anydim.engine.queue import Queue"),
        ("kernels/x.py", "from anydim.models import layers"),
        ("models/x.py", "from anydim.progress import progress_bar"),
        ("heads/x.py", "from anydim.models.qwen3 import Qwen3"),
        ("heads/x.py", "from anydim.kernels.pool import pool"),
        ("api/x.py", "from anydim.cli.main import app"),
        ("engine/x.py", "import anydim"),
        ("engine/x.py", "from anydim import Embedder"),
        ("engine/x.py", "from .. import Embedder"),
        ("engine/x.py", "from anydim import testing"),
        ("api/x.py", "from importlib import import_module; import_module('anydim.offline.job')"),
        ("engine/x.py", "from anydim.shiny import thing"),
        ("types.py", "from anydim.heads.pooling import pool"),
        ("config.py", "from .cli.main import app"),
        ("shiny.py", "import json"),
    ],
)
def test_a_climbing_import_is_found(path: str, line: str) -> None:
    guarded = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line.strip()}\n"
    plain = f"def late() -> None:\n    {line.strip()}\n"
    for text in (guarded, plain):
        found = imports_point_downward(plant({f"anydim/{path}": text}))
        assert len(found) == 1
        assert found[0].startswith(f"anydim/{path}:")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("api/app.py", "from anydim.intake.validate import check"),
        ("api/app.py", "from anydim.engine import remote"),
        ("api/dialects/cohere.py", "from ..vectors import encode"),
        ("engine/loop.py", "from anydim.heads.pooling import pool"),
        ("models/qwen3.py", "from anydim.kernels.rope import rope"),
        ("models/qwen3.py", "from . import layers"),
        ("models/qwen3.py", "from anydim.heads.pooling import pool"),
        ("heads/scoring.py", "from anydim import errors, types"),
        ("config.py", "from anydim.errors import ConfigError"),
        ("cli/main.py", "from anydim import Embedder"),
        ("embedder.py", "from anydim.engine.engine import Engine"),
        ("__init__.py", "from anydim.embedder import Embedder"),
        ("engine/loop.py", "import anydimension"),
    ],
)
def test_a_downward_import_is_fine(path: str, line: str) -> None:
    assert imports_point_downward(plant({f"anydim/{path}": line})) == []


def test_a_heavy_import_is_found_with_its_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "torch/__init__.py": "",
            "outside.py": "import torch",
            "anydim/__init__.py": "",
            "anydim/api/__init__.py": "",
            "anydim/api/clean.py": "from importlib.util import find_spec\nfind_spec('torch')",
            "anydim/api/late.py": "def late():\n    import torch",
            "anydim/api/vectors.py": "\nimport outside",
            "anydim/intake/broken.py": "import a_module_nobody_has",
        },
    )
    modules = light_modules(["anydim/__init__.py", *(f"anydim/api/{name}.py" for name in ("clean", "late"))])
    assert modules == ["anydim", "anydim.api.clean", "anydim.api.late"]
    assert loads_nothing_heavy(tmp_path, modules) == []

    found = loads_nothing_heavy(tmp_path, [*modules, "anydim.api.vectors", "anydim.intake.broken"])
    assert len(found) == 2
    assert found[0].startswith("anydim.api.vectors: importing it loads torch")
    assert found[0].endswith("vectors.py:2")
    assert found[1].startswith("anydim.intake.broken: cannot be imported: ModuleNotFoundError")


def test_light_modules_are_the_upper_floors_the_package_and_the_command() -> None:
    paths = ["anydim/__init__.py", "anydim/cli/main.py", "anydim/cli/serve.py", "anydim/models/qwen3.py"]
    upper = ["anydim/api/__init__.py", "anydim/api/dialects/tei.py", "anydim/intake/prompts.py", "anydim/api/page/x.js"]
    expected = ["anydim", "anydim.api", "anydim.api.dialects.tei", "anydim.cli.main", "anydim.intake.prompts"]
    assert light_modules(paths + upper) == expected


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
