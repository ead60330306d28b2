"""What every benchmark prints: what ran on what, a table, and one JSON line; and the dated file it leaves.

Not a script. It knows the machine and the versions, and nothing of what is measured.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

_PACKAGES: Final = ("anydim", "torch", "triton", "transformers", "sentence-transformers", "tokenizers", "numpy")


def environment() -> dict[str, Any]:
    """Hardware, versions and the command line."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *_arguments()]),
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "gpu": _gpu_name(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def publish(name: str, rows: Sequence[Mapping[str, Any]], out: Path | None) -> None:
    """Print the environment, the rows as a table and one JSON line; write the same to ``out`` where given."""
    result = {"benchmark": name, **environment(), "rows": list(rows)}
    print(f"\n{name} on {result['gpu'] or result['cpu']}, {result['versions']}")
    print(table(rows))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same or different columns, aligned."""
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


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
