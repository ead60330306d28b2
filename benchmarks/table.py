"""A result file as a Markdown table: our figures beside the bars, the rivals of the same run, and others' figures.

Run: python -m benchmarks.table benchmarks/results/2026-11-22-offline-4b-h100.json [more files]

Rows with a case become one line a case and one column an engine; the bar of benchmarks/bars.py stands beside ours with
`met` or `missed by`. Figures that are not of the run go into a table of their own. Any other result becomes one line a
row. It reads files and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.bars import bar_of, figure_of

_OURS: Final = "anydim"
_CARD: Final = ("card", "products alone")

Row = Mapping[str, Any]


def markdown(result: Mapping[str, Any]) -> str:
    """All tables of a result, with a line that says what ran on what."""
    rows: Sequence[Row] = result["rows"]
    where = result.get("gpu") or result["cpu"]
    lines = [f"`{result['command']}`", f"{result['date']}, {where}, commit {result.get('commit', 'not recorded')}", ""]
    offline = re.fullmatch(r"offline-([^-]+)-(.+)", result["benchmark"])
    if offline is None:
        return "\n".join([*lines, *_lines(_plain(rows))])
    lines += _lines(_cases(rows, offline[1], offline[2]))
    card = [row for row in rows if row.get("engine") in _CARD]
    others = [row for row in rows if "reference" in row]
    if card:
        lines += ["", "The card's own limits, in the same run:", "", *_lines(_plain(card))]
    if others:
        lines += ["", f"{_origin(others[0])}:", "", *_lines(_beside(others))]
    return "\n".join(lines)


def shown(figure: tuple[float, str] | None) -> str:
    """`84,816 tok/s`, `4.29 ms`, or nothing."""
    if figure is None:
        return ""
    value, unit = figure
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def _cases(rows: Sequence[Row], shape: str, precision: str) -> list[list[str]]:
    """One line a case: ours, the share of the limit, the bar, the rivals of the run."""
    run = [row for row in rows if "reference" not in row and row.get("engine") not in _CARD]
    rivals = list(dict.fromkeys(row["engine"] for row in run if row["engine"] != _OURS))
    cells = {(row["engine"], row["case"]): row for row in run}
    lines = [["case", _OURS, "of the limit", "bar", "", *rivals]]
    for case in dict.fromkeys(row["case"] for row in run):
        ours = cells.get((_OURS, case), {})
        figure = figure_of(ours)
        bar = bar_of(shape, precision, case)
        verdict = bar.verdict(figure[0]) if bar and figure else ""
        others = [shown(figure_of(cells.get((rival, case), {}))) for rival in rivals]
        lines.append([case, shown(figure), _share(ours), shown((bar.value, bar.unit)) if bar else "", verdict, *others])
    return lines


def _share(row: Row) -> str:
    return f"{100 * row['share']:.0f} % ({row['limited_by']})" if "share" in row else ""


def _beside(rows: Sequence[Row]) -> list[list[str]]:
    """One line a case, one column an engine."""
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    cells = {(row["engine"], row["case"]): row for row in rows}
    lines = [["case", *engines]]
    for case in dict.fromkeys(row["case"] for row in rows):
        lines.append([case, *(shown(figure_of(cells.get((engine, case), {}))) for engine in engines)])
    return lines


def _origin(row: Row) -> str:
    return f"{row['reference'].capitalize()} (recorded {row['recorded']}, {row['hardware']})"


def _plain(rows: Sequence[Row]) -> list[list[str]]:
    """One line a row, one column a key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _lines(cells: Sequence[Sequence[str]]) -> list[str]:
    written = [f"| {' | '.join(line)} |" for line in cells]
    return [written[0], "|" + "---|" * len(cells[0]), *written[1:]]


def main(arguments: Iterable[str] | None = None) -> None:
    """Print the tables of every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    for file in parser.parse_args(None if arguments is None else list(arguments)).files:
        print(markdown(json.loads(file.read_text())) + "\n")


if __name__ == "__main__":
    main()
