"""Setting: one field of the settings, as the command line, the environment, the file and the documentation see it.

It knows names, types and bounds; which settings there are, and their defaults, is said in config.py.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from anydim.errors import ConfigError

ENV_PREFIX: Final = "ANYDIM_"

_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})
_NUMBERS: Final = MappingProxyType({int: "a whole number", float: "a number"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One field, as the command line, the environment, the file and the documentation see it.

    Attributes:
        section: ``model``, ``engine``, ``server``, ``index`` or ``check``.
        name: the field's name; its flag is ``--`` and the name with hyphens.
        type: its annotation.
        default: its default.
        help: one sentence for people.
        metavar: what stands for its value in the help.
        least: lower bound of a number.
        most: upper bound of a number, or None.
    """

    section: str
    name: str
    type: Any
    default: Any
    help: str
    metavar: str | None
    least: float
    most: float | None

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENV_PREFIX + self.name.upper()

    @property
    def repeatable(self) -> bool:
        """Whether it holds several values."""
        return get_origin(self.type) is tuple

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.type is bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may take, where these are listed."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def wanted(self) -> str:
        """What its value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.repeatable:
            return "text, or a list of texts"
        parts = get_args(self.type) or (self.type,)
        return " or ".join(self._words(part) for part in parts if part is not type(None))

    def convert(self, value: Any, spelled: str) -> Any:
        """A value from any source as the field's type; ``spelled`` is the setting's name there.

        Raises:
            ConfigError: it is of another type or out of bounds.
        """
        given = value
        if self.repeatable and isinstance(value, str):
            value = [value]
        if self.is_switch and isinstance(value, str):
            value = True if value.lower() in _YES else False if value.lower() in _NO else value
        if self.type is float and isinstance(value, str):
            with contextlib.suppress(ValueError):  # Python reads .85, JSON's grammar does not
                value = float(value)
        try:
            converted = msgspec.convert(value, self.type, strict=False)
        except msgspec.ValidationError:
            converted = None
        if not self.admits(converted) or (converted is None and value is not None):
            raise ConfigError(f"{spelled} must be {self.wanted}, got {given!r}")
        return converted

    def admits(self, value: Any) -> bool:
        """Whether a number is within the bounds; true for everything else."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return self.least <= value and (self.most is None or value <= self.most)

    def _words(self, kind: Any) -> str:
        if get_origin(kind) is Literal:
            return " or ".join(get_args(kind))
        if kind not in _NUMBERS:
            return "true or false" if kind is bool else "text"
        bounds = f"of at least {self.least}" if self.most is None else f"from {self.least} to {self.most}"
        return f"{_NUMBERS[kind]} {bounds}"
