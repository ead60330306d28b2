"""A corpus of questions with one right answer each: the manual pages of a Debian system.

What stands behind the name in a page's NAME section is the question, the beginning of its DESCRIPTION the page that
answers it. Not a script. It reads man and mdoc sources with a few plain rules, and knows no model. Where a system has
no manual pages the corpus is empty.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.docstrings import Page, page_of, unlike

FOLDER: Final = Path("/usr/share/man")

_SECTION: Final = re.compile(r"^\.S[Hh]\s+\"?([^\"\n]+?)\"?\s*$", re.MULTILINE)
_WITH_TEXT: Final = re.compile(r"^\.(?:B|I|BR|IR|BI|IB|RB|RI|SM|SB|Nm|Nd|Ar|Fl|Pa|Xr|Em|Sy|Cm|Dv|Fn|Li|Ns|Ql|Dq|Va)\s+")
_ESCAPES: Final = (
    (re.compile(r"\\f(?:\[\w*\]|\(\w\w|\w)|\\s[-+]?\d|\\[&|^/%c]|\\\*\(\w\w|\\\*\[\w*\]|\\\*\S|\\m\[\w*\]"), ""),
    (re.compile(r"\\\((?:aq|cq|oq)|\\\[(?:aq|cq|oq)\]"), "'"),
    (re.compile(r"\\\((?:lq|rq|dq)|\\\[(?:lq|rq|dq)\]"), '"'),
    (re.compile(r"\\\((?:em|en|hy)|\\\[(?:em|en|hy)\]|\\-"), "-"),
    (re.compile(r"\\\(\w\w|\\\[\w+\]"), " "),
    (re.compile(r"\\e|\\\\"), r"\\"),
    (re.compile(r"\\ |\\~|\\0"), " "),
)
_FLOOD: Final = ("gcloud", "gsutil")  # thousands of pages that say the same of other things


def manuals(count: int) -> list[Page]:
    """The first ``count`` pages in the order of a hash of their names, so that all packages are mixed."""
    return unlike(_all_pages())[:count]


def _all_pages() -> Iterator[Page]:
    for path in sorted(FOLDER.glob("man[0-9]*/*.gz")):
        if not path.name.startswith(_FLOOD) and not path.is_symlink():
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
                page = _of_source(path.name.removesuffix(".gz"), file.read())
            if page is not None:
                yield page


def _of_source(name: str, source: str) -> Page | None:
    parts = _SECTION.split(source)
    sections = {title.upper(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    _, dash, question = _plain(sections.get("NAME", "")).partition(" - ")
    return page_of(name, question, _plain(sections.get("DESCRIPTION", ""))) if dash else None


def _plain(source: str) -> str:
    """Roff source as text: macros that carry text keep it, the others go."""
    lines = []
    for line in source.splitlines():
        if line.startswith(".Nd"):
            lines.append("-")
        if line.startswith((".", "'")):
            text = _WITH_TEXT.sub("", line)
            lines += [text.replace('"', "")] if text != line else []
        else:
            lines.append(line)
    text = " ".join(lines)
    for pattern, replacement in _ESCAPES:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())
