"""Imports modules one after another and prints, as JSON, which of them load a heavy library and from which line.

Knows neither the floors nor the libraries: both are in the question. It runs in its own process, so that what the
tests have already imported does not matter.

Run: python -P tests/policy/import_probe.py '{"modules": ["anydim"], "heavy": ["torch"], "package": "anydim"}'
"""

import importlib
import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import FrameType, ModuleType


class Watch(MetaPathFinder):
    """Finds nothing; notes which line of the package last asked for each heavy library."""

    def __init__(self, heavy: Sequence[str], package: str) -> None:
        self.heavy = heavy
        self.package = package
        self.asked: dict[str, str] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Notes the line; the finders after this one do the finding."""
        # The last to ask is the one that loads it: earlier ones only looked whether it is installed.
        if fullname in self.heavy:
            self.asked[fullname] = self.nearest_line(sys._getframe(1))

    def nearest_line(self, frame: FrameType | None) -> str:
        """The nearest calling line that belongs to the package."""
        while frame and str(frame.f_globals.get("__name__", "")).split(".")[0] != self.package:
            frame = frame.f_back
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "a line outside the package"


def probe(modules: Sequence[str], watch: Watch) -> list[str]:
    """Each module that cannot be imported or that is the first to load a heavy library."""
    found: list[str] = []
    seen: set[str] = set()
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            found.append(f"{name}: cannot be imported: {type(error).__name__}: {error}")
        loaded = [heavy for heavy in watch.heavy if heavy in sys.modules and heavy not in seen]
        found += [
            f"{name}: importing it loads {heavy}, asked for at {watch.asked.get(heavy, 'no line')}" for heavy in loaded
        ]
        seen.update(loaded)
    return found


if __name__ == "__main__":
    question = json.loads(sys.argv[1])
    watch = Watch(question["heavy"], question["package"])
    sys.meta_path.insert(0, watch)
    answer = probe(question["modules"], watch)
    print("\n" + json.dumps(answer))
