"""Writes docs/compatibility.md from the marks of the tests in tests/clients, so that the page names what is tested.

It knows the tests' source and constraints.txt; it runs nothing.

Run: python -m tests.compatibility, or with --check to fail where the page is stale.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
INTRO = """\
# Clients and dialects

<!-- Written by `python -m tests.compatibility`; do not edit. -->

One port speaks all of these. Each row is a test in `tests/clients`, which drives that client against a real server, or
sends the bodies that its documentation shows (`request shapes`).

| Dialect | Client | Routes | Test |
|---|---|---|---|
"""
RULES = """
Where dialects share a path, its owner's shape holds until a field that only another dialect has is seen:

| Path | Owner | Another dialect, and its field |
|---|---|---|
| `/v1/embeddings` | OpenAI | Jina: `task`, `embedding_type`, `normalized`, `late_chunking` |
| `/v1/rerank` | one answer for Cohere's v1 and Jina's clients | |
| `/rerank` | Jina (and vLLM) | TEI: `texts` |
| `/tokenize` | vLLM | TEI: `inputs` |

Errors have the dialect's shape and status: OpenAI and vLLM `{"error": {...}}`, Cohere `{"message"}`, Jina `{"detail"}`
with 422 for wrong fields, TEI `{"error", "error_type"}` with 422, 424 and 429, Ollama `{"error"}`.

Every embedding route takes `output_dim`, `instruction`, `prompt_name` and `input_type` beside its dialect's own fields.

TEI's `/embed_all` and vLLM's `"task": "token_embed"` give a vector for each token: the model's last hidden states, of
its width unless a dimension is asked for. `--max-answer-bytes` bounds such an answer.

Not served: Jina's `late_chunking` and images, which are refused; vLLM's `token_classify`, and its chat messages at
`/pooling`; TEI's gRPC and sparse vectors (`/embed_sparse`), for which no model here is made.
"""


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Dialect, client, routes and test of each mark."""
    for file in sorted((ROOT / "tests" / "clients").glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.speaks":
                        dialect, client, routes = (ast.literal_eval(word) for word in mark.args)
                        yield dialect, client, routes, node.name


def page() -> str:
    """The page as it should be."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    lines = []
    for dialect, client, routes, test in sorted(rows()):
        version = pins.get(client) or pins.get(client.replace("_", "-")) or ""
        lines.append(f"| {dialect} | {client} {version} | {routes} | `{test}` |".replace("  ", " "))
    return INTRO + "\n".join(lines) + "\n" + RULES


def main() -> None:
    """Write the page, or compare it."""
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if sys.argv[1:] == ["--check"]:
        if current != page():
            print("docs/compatibility.md is stale: run `make docs`", file=sys.stderr)
            sys.exit(1)
    elif current != page():
        PAGE.write_text(page(), encoding="utf-8")
        print("docs/compatibility.md written")


if __name__ == "__main__":
    main()
