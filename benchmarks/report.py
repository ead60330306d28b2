"""What every benchmark prints: what ran on what, a table, and one JSON line; and the dated file it leaves.

Not a script. It knows the machine and the versions, and nothing of what is measured.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

_PACKAGES: Final = ("anydim", "torch", "triton", "transformers", "sentence-transformers", "tokenizers", "numpy")


def environment() -> dict[str, Any]:
    """Hardware, versions, commit and the command line."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *_arguments()]),
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "gpu": _gpu_name(),
        "cuda": _cuda_version(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def publish(name: str, rows: Sequence[Mapping[str, Any]], out: Path | None) -> None:
    """Print the environment, the rows as tables and one JSON line; write the same to ``out`` where given.

    Args:
        name: of the benchmark and what varies it.
        rows: what was measured.
        out: a file; or a folder, where the file is named after the date, the benchmark and the hardware.
    """
    result = {"benchmark": name, **environment(), "rows": list(rows)}
    print(f"\n{name} on {result['gpu'] or result['cpu']}, {result['versions']}")
    for part in by_columns(rows):
        print(f"\n{table(part)}")
    if out is not None:
        file = place_of(result, out)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {file}")
    print(json.dumps(result))


def place_of(result: Mapping[str, Any], out: Path) -> Path:
    """The file to write: ``out``, or in that folder DATE-BENCHMARK-HARDWARE.json, numbered where one is there."""
    if out.suffix == ".json":
        return out
    stem = f"{result['date']}-{result['benchmark']}-{_short(result['gpu']) or 'cpu'}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(file for name in names if not (file := out / f"{name}.json").exists())


def by_columns(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows of the same columns together, in the order in which their columns first occur."""
    parts: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(tuple(row), []).append(row)
    return list(parts.values())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same or of different columns, aligned."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_shown(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _arguments() -> list[str]:
    """The flags, without the place of the result file."""
    flags = sys.argv[1:]
    place = flags.index("--out") if "--out" in flags else len(flags)
    return flags[:place] + flags[place + 2 :]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "source" if name == "anydim" else ""


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _short(gpu: str) -> str:
    """`NVIDIA H100 80GB HBM3` -> `h100`."""
    found = re.search(r"[A-Z]+\d+\w*", gpu.replace("RTX ", "RTX"))
    return found[0].lower() if found else re.sub(r"\W+", "-", gpu.lower()).strip("-")


def _commit() -> str:
    """The commit that was measured, marked where files differ from it; BENCHMARK_COMMIT speaks for copies of it."""
    if named := os.environ.get("BENCHMARK_COMMIT"):
        return named
    folder = str(Path(__file__).parent.parent)
    try:
        words = ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cuda_version() -> str:
    import torch

    return torch.version.cuda or ""


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
