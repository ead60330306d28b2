"""Do the request decoders survive any bytes? Coverage-guided fuzzing of bodies and headers with atheris.

Run: python -m benchmarks.fuzz [--runs 10000000] [--seconds 3600] [--out FILE]   (pip install 'anydim[fuzz]')

The first byte picks a decoder, the rest is what a client sent: a body for each dialect's request, strict or not, and
what becomes of it up to the tokens; an Accept header; the terms of a request. A decoder answers or raises one of our
own errors with a short message; anything else is a finding, is printed and ends the run. The result tells how many
executions there were. Without atheris (it has wheels for Linux on x86-64 alone) nothing runs.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request

from anydim import testing
from anydim.api import dialects
from anydim.api.body import BodyDecoder
from anydim.api.terms import terms_of
from anydim.api.vectors import wanted_form
from anydim.errors import AnydimError
from benchmarks import report

Decoder = Callable[[bytes], object]

_CHILD: Final = """
import sys
from pathlib import Path
import atheris
with atheris.instrument_imports(include=["anydim.api", "anydim.intake"]):
    from benchmarks.fuzz import fuzz
fuzz(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
"""
_LONGEST_MESSAGE: Final = 2000
_LONGEST_INPUT: Final = 512
_SEEDS: Final = (
    b'{"input": "a"}',
    b'{"input": ["a", "b"], "model": "anydim/fake", "dimensions": [32, 64], "encoding_format": "base64"}',
    b'{"input": [[1, 2], [3]], "output_dtype": "int8", "truncate": true, "normalize": false, "user": null}',
    b'{"input": "a", "instruction": "find", "input_type": "query", "priority": "high", "timeout": 1.5}',
    b'{"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": true}',
    b'{"texts": ["a"], "inputs": ["b"], "input_ids": [1], "text_1": "a", "text_2": ["b"], "raw_scores": true}',
    b"application/octet-stream;q=0.5, application/vnd.apache.arrow.stream;q=0.9, */*",
    b'{"input": "\\ud800\\u0000\xc3\xa9"}',
)
_WORDS: Final = """
input model dimensions output_dim encoding_format output_dtype truncate normalize instruction prompt_name input_type
priority timeout query documents top_n return_documents texts text inputs true false null base64 float int8 end start
none application/octet-stream */* ;q= e308 -0 1e400 \\\\u0000 \\\\ud800
"""


def decoders() -> list[tuple[str, Decoder]]:
    """Everything that reads what a client sent, by name."""
    found: list[tuple[str, Decoder]] = [("accept", _accept), ("terms", _terms)]
    for struct in _request_structs():
        for strict in (False, True):
            decode = BodyDecoder(struct, strict).decode
            found.append((f"{struct.__name__}{' strict' if strict else ''}", decode))
    return [*found, ("embeddings", _embeddings())]


def _request_structs() -> Iterator[type[msgspec.Struct]]:
    """The structs that bodies are decoded into: those of the dialects that end in Request."""
    seen: dict[str, type[msgspec.Struct]] = {}
    for module in pkgutil.iter_modules(dialects.__path__, f"{dialects.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and name.endswith("Request"):
                seen[f"{value.__module__}.{name}"] = value
    yield from seen.values()


def _accept(data: bytes) -> object:
    return wanted_form(data.decode("latin-1"))


def _terms(data: bytes) -> object:
    header, _, priority = data.partition(b"\n")
    request = Request({"type": "http", "headers": [(b"x-request-timeout", header)], "state": {}})
    return terms_of(request, priority.decode("latin-1") or None, float(len(priority)) or None)


def _embeddings() -> Decoder:
    """A body of POST /v1/embeddings, down to its Items."""
    from anydim.api.dialects import openai
    from anydim.api.models import Models, ServedModel
    from anydim.api.service import Service
    from anydim.config import ServerSettings

    models = Models([ServedModel(intake=testing.intake())])
    routes: Any = openai.OpenAIRoutes(Service(models, None, ServerSettings()))  # type: ignore[arg-type]  # nothing runs
    request = Request({"type": "http", "headers": [], "state": {}})
    return lambda data: routes._prepare(request, data)


def try_one(choice: Sequence[tuple[str, Decoder]], data: bytes) -> None:
    """Hand bytes to the decoder that their first one picks.

    Raises:
        Exception: it broke.
    """
    if not data:
        return
    name, decode = choice[data[0] % len(choice)]
    length = len(_message(decode, data[1:]))
    assert length < _LONGEST_MESSAGE, f"{name}: a message of {length} characters"


def _message(decode: Decoder, data: bytes) -> str:
    """What a decoder says of bytes that it refuses; nothing where it takes them."""
    try:
        decode(data)
    except AnydimError as error:
        return error.message
    return ""


def fuzz(runs: int, seconds: int, corpus: Path) -> None:
    """Fuzz in this process; it ends with it. The package must have been imported under atheris, see _CHILD."""
    import atheris

    choice = decoders()
    words = corpus.parent / "words"
    words.write_text("".join(f'"{word}"\n' for word in _WORDS.split()))
    flags = [f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={_LONGEST_INPUT}", f"-dict={words}"]
    atheris.Setup([sys.argv[0], *flags, "-print_final_stats=1", str(corpus)], lambda data: try_one(choice, data))
    atheris.Fuzz()


def main() -> None:
    """Parse the command line, fuzz in a process of its own, count, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = [name for name, _ in decoders()]
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        for place in range(len(names)):
            for number, seed in enumerate(_SEEDS):
                (corpus / f"{place}-{number}").write_bytes(bytes([place]) + seed)
        words = [str(options.runs), str(options.seconds), str(corpus)]
        began = time.perf_counter()
        child = subprocess.run([sys.executable, "-c", _CHILD, *words], stderr=subprocess.PIPE, text=True, check=False)
        took = time.perf_counter() - began
    sys.stderr.write(child.stderr[-4000:])
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", child.stderr)
    assert child.returncode == 0 and executed is not None, "a decoder broke, or atheris could not start; see above"
    covered = re.findall(r"cov: (\d+)", child.stderr)
    row = {
        "decoders": len(names),
        "executions": int(executed[1]),
        "findings": 0,
        "edges_covered": int(covered[-1]) if covered else 0,
        "seconds": took,
    }
    report.publish("fuzz", [row], options.out)


if __name__ == "__main__":
    main()
