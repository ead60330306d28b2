"""Chart: quality against bytes a vector, as a picture and as a page that can be used without a network.

The picture is drawn by matplotlib, the page by plotly, which is written into it. It knows an Advice; it measures
nothing.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from anydim.quality.advise import Advice, Measured
from anydim.quality.extra import need

_COLOURS: Final = MappingProxyType(  # Okabe and Ito, told apart by most eyes
    {"float32": "#0072B2", "float16": "#56B4E9", "int8": "#E69F00", "binary": "#CC79A7"}
)
_DARK: Final = "#333333"
_GREY: Final = "#999999"
_GREEN: Final = "#009E73"
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th { position: sticky; top: 0; background: #fff }
tr.front { font-weight: 600 } tr.best { background: #d9f2e6 }
"""

Series = tuple[str, str, bool, Sequence[Measured]]


def series(advice: Advice) -> list[Series]:
    """The forms in groups that are drawn alike: name, type, whether fitted, rows by size."""
    groups: dict[tuple[str, bool], list[Measured]] = {}
    for row in advice.rows:
        groups.setdefault((row.form.dtype.value, row.form.fitted), []).append(row)
    return [
        (f"{dtype}, fitted" if fitted else dtype, dtype, fitted, rows)
        for (dtype, fitted), rows in sorted(
            groups.items(), key=lambda item: (list(_COLOURS).index(item[0][0]), item[0][1])
        )
    ]


def draw_picture(advice: Advice, title: str, file: Path) -> None:
    """Write a PNG.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    need("matplotlib").use("Agg")
    plot = need("matplotlib.pyplot")
    figure, axes = plot.subplots(figsize=(9, 5.5), dpi=144, layout="constrained")
    for name, dtype, fitted, rows in series(advice):
        sizes, values = [row.form.bytes for row in rows], [row.value for row in rows]
        style = {"marker": "o", "ls": "--", "mfc": "white"} if fitted else {"marker": "o", "ls": "-"}
        axes.plot(sizes, values, color=_COLOURS[dtype], label=name, ms=4, lw=1.2, **style)
        axes.fill_between(sizes, *_bounds(advice, rows), color=_COLOURS[dtype], alpha=0.1, lw=0)
    front = advice.front
    axes.step(
        [row.form.bytes for row in front], [row.value for row in front], where="post", color=_DARK, lw=1, label="front"
    )
    level = advice.keep * advice.full.value
    axes.axhline(level, color=_GREY, ls=":", lw=1, label=f"{100 * advice.keep:g} % of full")
    best = advice.recommended
    axes.plot(
        best.form.bytes, best.value, marker="*", ms=16, color=_GREEN, ls="", label=f"use: {best.form.name}", zorder=5
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlabel="bytes a vector", ylabel=advice.metric, title=title)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(file)
    plot.close(figure)


def draw_page(advice: Advice, title: str, count: int, file: Path) -> None:
    """Write an HTML page with the chart, the advice and every row; it needs no network.

    Raises:
        MissingExtra: plotly is not installed.
    """
    figure = need("plotly.graph_objects").Figure(_figure(advice, title))
    chart = figure.to_html(
        full_html=False, include_plotlyjs=True, default_height="560px", config={"displaylogo": False}
    )
    parts = [
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>',
        f"<h1>{html.escape(title)}</h1>\n<p><strong>{html.escape(advice.words)}</strong></p>",
        f"<p>Measured on {html.escape(advice.units)}. The green row is the one to use, bold rows are the front: no "
        "smaller form is better. Brackets hold 95 of 100 cases.</p>",
        chart,
        _table(advice, count),
    ]
    file.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _figure(advice: Advice, title: str) -> dict[str, Any]:
    """The chart in plotly's own words."""
    level = advice.keep * advice.full.value
    best = advice.recommended
    traces = [_trace(advice, *group) for group in series(advice)]
    front = advice.front
    traces += [
        _line("front", front, {"color": _DARK, "width": 1, "shape": "hv"}),
        {
            **_line(f"use: {best.form.name}", [best], {}),
            "mode": "markers",
            "marker": {"symbol": "star", "size": 16, "color": _GREEN},
        },
    ]
    layout = {
        "title": {"text": title},
        "template": "plotly_white",
        "hovermode": "closest",
        "xaxis": {"type": "log", "dtick": 0.30102999566, "title": {"text": "bytes a vector"}, "tickformat": ",d"},
        "yaxis": {"title": {"text": advice.metric}},
        "shapes": [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level}
            | {"line": {"color": _GREY, "dash": "dot"}}
        ],
        "annotations": [
            {"xref": "paper", "x": 0.01, "y": level, "text": f"{100 * advice.keep:g} % of full", "showarrow": False}
            | {"yanchor": "bottom", "xanchor": "left"}
        ],
    }
    return {"data": traces, "layout": layout}


def _trace(advice: Advice, name: str, dtype: str, fitted: bool, rows: Sequence[Measured]) -> dict[str, Any]:
    lows, highs = _bounds(advice, rows)
    return {
        **_line(name, rows, {"color": _COLOURS[dtype], "dash": "dash" if fitted else "solid"}),
        "mode": "lines+markers",
        "marker": {"symbol": "circle-open" if fitted else "circle", "size": 7},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - row.value for high, row in zip(highs, rows, strict=True)],
            "arrayminus": [row.value - low for low, row in zip(lows, rows, strict=True)],
            "thickness": 0.7,
            "width": 2,
        },
    }


def _line(name: str, rows: Sequence[Measured], line: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [row.form.bytes for row in rows],
        "y": [row.value for row in rows],
        "text": [f"{row.form.name}<br>{row.share.words(100, 1)} % of full" for row in rows],
        "hovertemplate": "%{text}<br>%{y:.3f} at %{x:,} bytes<extra></extra>",
        "line": line,
    }


def _bounds(advice: Advice, rows: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Where the values lie, from the intervals of their shares."""
    full = advice.full.value
    return [full * row.share.low for row in rows], [full * row.share.high for row in rows]


def _table(advice: Advice, count: int) -> str:
    front = {row.form for row in advice.front}
    names = list(advice.full.metrics)
    head = ["dimension", "type", "fitted", "bytes", f"{count:,} vectors", *names, "share of full, %", "search, ms"]
    lines = []
    for row in advice.rows:
        kind = "best" if row.form == advice.recommended.form else "front" if row.form in front else ""
        cells = [
            str(row.form.dim),
            row.form.dtype.value,
            "yes" if row.form.fitted else "",
            f"{row.form.bytes:,}",
            size_words(count * row.form.bytes),
            *(f"{row.metrics[name]:.3f}" for name in names),
            row.share.words(100, 1),
            "" if row.search_ms is None else f"{row.search_ms:,.1f}",
        ]
        lines.append(f'<tr class="{kind}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f"<table>\n<tr>{titles}</tr>\n" + "\n".join(lines) + "\n</table>"


def size_words(size: float) -> str:
    """Bytes for people: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
