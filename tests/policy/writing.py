"""Rules about the text: how a file opens, shape legends, and words that belong to no reader of the project.

Knows text and syntax. The patterns are written so that this file does not match them.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Final

from .sources import PACKAGE, Source

SHAPED_NAME: Final = re.compile(r"_*[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)")
MACHINE_PATH: Final = re.compile(r"(?<![\w.~})\]-])/(?:tmp|root|work)/\w")
REGISTRY_HOST: Final = re.compile(r"python" + r"hosted[.]org|npm" + r"js[.]org", re.IGNORECASE)
WORKSHOP: Final = re.compile(r"helper[ -]agents?\b|\bsub-?agents?\b|[.]{2}/shared\b", re.IGNORECASE)
OWN_ISSUE: Final = re.compile(
    r"(?P<before>\S+ +)?\b(?:issues?|tickets?|tasks?|pull request|PR|fix(?:es|ed)?|clos(?:es|ed)|see) *#\d+",
    re.IGNORECASE,
)
PEERS: Final = re.compile(
    r"\b(?:vllm|sglang|transformers|sentence-transformers|tokenizers|infinity|text-embeddings-inference|tei|triton"
    r"|torch|pytorch|ray|llama\.cpp|ollama|flash-attention)(?:'s)?\s*$",
    re.IGNORECASE,
)
EMOJI: Final = re.compile(
    r"[\U0001F000-\U0001FAFF\u2600-\u26FF\u2705\u2728\u274C\u274E\u2753-\u2757\u2795-\u2797\u27A1\u2B50\u2B55"
    r"\u231A\u231B\u23E9-\u23F3\uFE0F]"
)
PROSE: Final = (".py", ".md", ".rst", ".txt", ".toml", ".html", ".css", ".js", ".svg")


def opens_with_docstring(python: Iterable[Source]) -> list[str]:
    """Python files that do not open with a docstring."""
    return [f"{source.path}:1: opens without a docstring" for source in python if not ast.get_docstring(source.tree)]


def scripts_say_how_to_run(python: Iterable[Source]) -> list[str]:
    """Scripts whose docstring has neither `Run:` nor `Usage`."""
    return [
        f"{source.path}:1: is a script and does not say how to run it"
        for source in python
        if is_script(source) and not re.search(r"\brun:|\busage\b", ast.get_docstring(source.tree) or "", re.IGNORECASE)
    ]


def is_script(source: Source) -> bool:
    """Whether the file acts when it is run: a `__main__.py`, or one that compares `__name__` with `"__main__"`."""
    if source.path.rsplit("/", 1)[-1] == "__main__.py":
        return True
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
        for node in source.tree.body
    )


def shapes_have_a_legend(package: Iterable[Source]) -> list[str]:
    """Files over torch whose names carry a shape letter that their docstring does not explain."""
    found = []
    for source in package:
        if _imports_torch(source.tree):
            legend = ast.get_docstring(source.tree) or ""
            letters = _first_uses(source.tree)
            unexplained = [letter for letter in sorted(letters) if not explains(legend, letter)]
            found += [
                source.at(letters[letter][1], f"{letters[letter][0]}: nothing explains {letter}")
                for letter in unexplained
            ]
    return found


def explains(legend: str, letter: str) -> bool:
    """Whether a legend has an entry such as `T tokens in the batch` or `G = F/2`, on its own line or in a list."""
    return bool(re.search(rf"(?m)(?:^|[,;:|*-]|\band)\s*`?{letter}`?(?:\s*[:=]\s*\S|\s+\(?[a-z0-9])", legend))


def _imports_torch(tree: ast.Module) -> bool:
    imported = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    names = (
        [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for node in imported
    )
    return any(name.split(".")[0] == "torch" for group in names for name in group)


def _first_uses(tree: ast.Module) -> dict[str, tuple[str, ast.AST]]:
    uses: dict[str, tuple[str, ast.AST]] = {}
    for node, name in _identifiers(tree):
        shape = SHAPED_NAME.fullmatch(name)
        for letter in shape[1] if shape else "":
            if letter.isalpha():
                uses.setdefault(letter, (name, node))
    return uses


def _identifiers(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node, name


def no_machine_paths(texts: Iterable[Source]) -> list[str]:
    """Absolute paths of one machine."""
    return _matches(texts, MACHINE_PATH, "names a path of one machine")


def no_registry_hosts(texts: Iterable[Source]) -> list[str]:
    """Host names of package registries."""
    return _matches(texts, REGISTRY_HOST, "names the host of a package registry")


def no_workshop_words(texts: Iterable[Source]) -> list[str]:
    """Words about how the project was made."""
    return _matches(texts, WORKSHOP, "speaks of the workshop")


def no_own_issue_numbers(texts: Iterable[Source]) -> list[str]:
    """Issue numbers of our own in the package and the docs; in the docs a peer's number is fine (vllm #15465)."""
    found = []
    for source in texts:
        if source.path.startswith((f"{PACKAGE}/", "docs/")):
            in_docs = source.path.startswith("docs/")
            for number, line in enumerate(source.text.splitlines(), start=1):
                for hit in OWN_ISSUE.finditer(line):
                    if not (in_docs and PEERS.search(hit["before"] or "")):
                        found.append(f"{source.path}:{number}: cites an issue number: {hit[0].strip()!r}")
    return found


def no_emoji(texts: Iterable[Source]) -> list[str]:
    """Emoji in the package, the docs and the README; data files such as vocabularies are exempt."""
    places = (f"{PACKAGE}/", "docs/", "README")
    prose = [source for source in texts if source.path.startswith(places) and source.path.endswith(PROSE)]
    return _matches(prose, EMOJI, "has an emoji")


def _matches(texts: Iterable[Source], pattern: re.Pattern[str], complaint: str) -> list[str]:
    return [
        f"{source.path}:{number}: {complaint}: {hit[0]!r}"
        for source in texts
        for number, line in enumerate(source.text.splitlines(), start=1)
        if (hit := pattern.search(line))
    ]
