"""Report: findings as lines for a terminal, as plain values and as a page. It knows findings; it checks nothing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from anydim.quality.check import Finding, Shown

_LONGEST: Final = 100  # characters of a text
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
.pass { color: #007a55; font-weight: 600 } .fail { color: #b3261e; font-weight: 600 } .told { color: #666 }
"""


def has_passed(findings: Sequence[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.passed is not False for finding in findings)


def as_values(name: str, findings: Sequence[Finding], shown: Sequence[Shown]) -> dict[str, Any]:
    """The whole report as JSON holds it."""
    return {
        "subject": name,
        "passed": has_passed(findings),
        "findings": [asdict(finding) for finding in findings],
        "searches": [asdict(one) for one in shown],
    }


def as_text(name: str, findings: Sequence[Finding], shown: Sequence[Shown]) -> str:
    """The whole report for a terminal."""
    lines = [name]
    for finding in findings:
        why = f"  {finding.words}" if finding.words else ""
        lines.append(f"{_verdict(finding).upper():<5} {finding.step}: {finding.name}  {_figures(finding)}{why}")
    for one in shown:
        lines.append(f"\n{_short(one.query)}{_answered(one)}")
        lines += [f"  {place}  {cosine:.3f}  {_short(text)}" for place, (cosine, text) in enumerate(one.hits, 1)]
    lines.append("\nPassed." if has_passed(findings) else "\nFailed.")
    return "\n".join(lines)


def as_page(name: str, findings: Sequence[Finding], shown: Sequence[Shown]) -> str:
    """The whole report as HTML that needs no network."""
    rows = "\n".join(
        f"<tr><td>{html.escape(finding.step)}</td><td>{html.escape(finding.name)}</td>"
        f'<td class="{_verdict(finding)}">{_verdict(finding)}</td><td>{html.escape(_figures(finding))}</td>'
        f"<td>{html.escape(finding.words)}</td></tr>"
        for finding in findings
    )
    searches = "\n".join(
        f"<tr><td>{html.escape(one.query)}{_answered(one)}</td>" + "".join(_cell(*hit) for hit in one.hits) + "</tr>"
        for one in shown
    )
    heads = "".join(f"<th>{head}</th>" for head in ("query", "first", "second", "third"))
    own = f"<h2>Your queries</h2>\n<table><tr>{heads}</tr>\n{searches}\n</table>" if shown else ""
    verdict = "passed" if has_passed(findings) else "failed"
    titles = "".join(f"<th>{head}</th>" for head in ("step", "what", "", "figures", "why"))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Check of {html.escape(name)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n'
        f"<h1>{html.escape(name)}: {verdict}</h1>\n<table><tr>{titles}</tr>\n{rows}\n</table>\n{own}\n"
    )


def _verdict(finding: Finding) -> str:
    return {True: "pass", False: "fail", None: "told"}[finding.passed]


def _figures(finding: Finding) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in finding.figures.items())


def _answered(one: Shown) -> str:
    return {True: "  [found]", False: "  [not among the first]", None: ""}[one.right]


def _cell(cosine: float, text: str) -> str:
    return f"<td>{cosine:.3f}<br>{html.escape(text[:400])}</td>"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
