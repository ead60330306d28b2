"""Sources: settings as they stand in the environment and in a TOML file, by name.

Unknown names are refused with the nearest known one. It knows how settings are spelled; which there are, what they mean
and which source goes first is said in config.py.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anydim.errors import ConfigError
from anydim.setting import ENV_PREFIX, Setting


def nearest(name: str, known: Sequence[str]) -> str:
    """`` (did you mean X?)`` for the known name nearest to a wrong one, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def from_environment(environ: Mapping[str, str], settings: Sequence[Setting]) -> dict[str, Any]:
    """Values by setting name; only variables that start with ANYDIM_ are read, and empty ones count as unset.

    Raises:
        ConfigError: a variable is unknown, or holds only commas.
    """
    known = {setting.variable: setting for setting in settings}
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        if variable not in known:
            raise ConfigError(f"unknown environment variable {variable}{nearest(variable, list(known))}")
        setting = known[variable]
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if setting.repeatable and parts:
            values[setting.name] = parts
        elif setting.repeatable and text.strip():
            raise ConfigError(f"{variable} holds only commas")
        elif not setting.repeatable and text.strip():
            values[setting.name] = text.strip()
    return values


def from_file(path: Path, settings: Sequence[Setting]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Keys of a TOML file, those of the first [[models]] table among them; and the further tables.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has an unknown key.
    """
    document = _read_toml(path)
    models = document.pop("models", [])
    if not isinstance(models, list) or not all(isinstance(table, dict) for table in models):
        raise ConfigError(f"{path}: models must be [[models]] tables")
    of_model = [setting.name for setting in settings if setting.section == "model"]
    values = _known_keys(document, [setting.name for setting in settings], str(path))
    tables = [_known_keys(table, of_model, f"[[models]] in {path}") for table in models]
    for inner in tables[:1]:
        twice = sorted(set(values) & set(inner))
        if twice:
            raise ConfigError(f"{path}: {', '.join(twice)} stands both at the top and in [[models]]")
        values |= inner
    if any("model" not in table for table in tables[1:]):
        raise ConfigError(f"{path}: of several [[models]] tables each needs its model")
    return values, tables[1:]


def _read_toml(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        raise ConfigError(f"{path}: settings files are TOML, such as `port = 30001`")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _known_keys(table: Mapping[str, Any], known: Sequence[str], place: str) -> dict[str, Any]:
    values = {key.replace("-", "_"): value for key, value in table.items()}
    for key in values:
        if isinstance(values[key], dict):
            raise ConfigError(f"{place}: there is no table [{key}]; its keys stand at the top of the file")
        if key not in known:
            raise ConfigError(f"{place}: unknown key {key}{nearest(key, known)}")
    return values
