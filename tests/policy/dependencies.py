"""Rules about dependencies: what is installed is what was tested, and nothing has a hole that is known here.

Knows the pins in constraints.txt, the bounds in pyproject.toml and the list in holes.toml; asks no service.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from .sources import PACKAGE

HOLES_FILE: Final = Path(__file__).with_name("holes.toml")
# torch's own CUDA packages follow its version; setuptools and pip belong to the environment.
UNPINNED: Final = re.compile(r"nvidia-.*|cuda-.*|pip|setuptools")


@dataclass(frozen=True)
class Hole:
    """Versions of a package that have a published hole."""

    package: str
    versions: SpecifierSet
    id: str


def known_holes(path: Path = HOLES_FILE) -> list[Hole]:
    """The list, by canonical names."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))["hole"]
    return [Hole(canonicalize_name(hole["package"]), SpecifierSet(hole["versions"]), hole["id"]) for hole in found]


def pins(text: str) -> dict[str, Version]:
    """The versions in a file of constraints, by canonical name."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    named = (line.split("==") for line in lines if line)
    return {canonicalize_name(name): Version(version) for name, version in named}


def installed(extras: Iterable[str], ask: Callable[[str], metadata.Distribution]) -> dict[str, Version]:
    """What of the package and its extras is installed, with all that it pulls in; absent packages are left out."""
    found: dict[str, Version] = {}
    left = [Requirement(f"{PACKAGE}[{','.join(extras)}]")]
    seen: set[tuple[str, str]] = set()
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        try:
            distribution = ask(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = Version(distribution.version)
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            left += _wanted(distribution, extra)
    return {name: version for name, version in found.items() if name != PACKAGE}


def _wanted(distribution: metadata.Distribution, extra: str) -> list[Requirement]:
    requirements = map(Requirement, distribution.requires or ())
    return [wanted for wanted in requirements if wanted.marker is None or wanted.marker.evaluate({"extra": extra})]


def unpinned(found: Mapping[str, Version], pinned: Mapping[str, Version]) -> list[str]:
    """Installed packages without a pin, or in another version."""
    return [
        f"{name} {version} is installed, {pinned.get(name, 'nothing')} is pinned in constraints.txt"
        for name, version in sorted(found.items())
        if not UNPINNED.fullmatch(name) and (name not in pinned or Version(version.public) != pinned[name])
    ]


def with_holes(found: Mapping[str, Version], holes: Iterable[Hole]) -> list[str]:
    """Packages in a version with a known hole."""
    return [
        f"{hole.package} {found[hole.package]} has a hole: {hole.id}"
        for hole in holes
        if hole.package in found and hole.versions.contains(found[hole.package], prereleases=True)
    ]


def bounds_that_admit_holes(project: str, holes: Iterable[Hole]) -> list[str]:
    """Requirements in pyproject.toml whose lowest version has a known hole."""
    document = tomllib.loads(project)["project"]
    groups = [document["dependencies"], *document["optional-dependencies"].values()]
    lowest = {}
    for wanted in (Requirement(text) for group in groups for text in group):
        versions = [Version(part.version) for part in wanted.specifier if part.operator in (">=", "==", "~=")]
        if versions:
            lowest[canonicalize_name(wanted.name)] = min(versions)
    return with_holes(lowest, holes)
