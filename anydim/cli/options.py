"""Options: click options made from the settings in config.py, and the help page they form.

Every default, help text and environment variable on the page comes from config.py; click's own handling of environment
variables and defaults is not used, so that flags, ANYDIM_* variables and the TOML file are merged in one place. It
knows click and the settings; it knows no model and no server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import click

from anydim.config import Settings, all_settings, load_settings
from anydim.setting import Setting

HELP_WIDTH: Final = 100
CONTEXT: Final = MappingProxyType({"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH})
LIBRARY: Final = (  # of the model and the engine where they run in this process
    *("model", "revision", "cache", "dtype", "force_float16", "quantization", "projection", "dim_step"),
    *("max_input_tokens", "device", "tp", "max_batch_tokens", "mem_fraction_static", "threads", "enable_tqdm"),
)
SEARCH: Final = ("db", "collection", "candidates", "top_k")

_TITLES: Final = MappingProxyType(
    {"model": "Model", "engine": "Engine", "server": "Server", "index": "Index", "check": "Check"}
)


class SettingOption(click.Option):
    """A click option that stands for one setting. It leaves conversion and defaults to config.py."""

    def __init__(self, setting: Setting) -> None:
        """Make the option; ``--model`` may be given twice only so that it can be refused in clear words."""
        self.setting = setting
        flag = f"{setting.flag}/--no-{setting.flag[2:]}" if setting.is_switch else setting.flag
        super().__init__(
            [flag, setting.name],
            help=f"{setting.help} [{', '.join(_facts(setting))}]",
            default=None,
            type=None if setting.is_switch else str,
            metavar=None if setting.is_switch else _metavar(setting),
            multiple=setting.repeatable or setting.name == "model",
        )

    @property
    def title(self) -> str:
        """The heading on the help page."""
        return _TITLES[self.setting.section]


class SettingCommand(click.Command):
    """A command whose help page groups its options by section and ends with examples that can be pasted."""

    def __init__(self, name: str, examples: str = "", first: Iterable[str] = (), **extra: Any) -> None:
        """Make a command.

        Args:
            name: of the command.
            examples: printed as they stand at the end of the help page.
            first: sections that stand before the others.
            extra: what click's own command takes.
        """
        super().__init__(name, context_settings=dict(CONTEXT), **extra)
        self._examples = examples
        self._titles = tuple(dict.fromkeys([*first, *_TITLES.values(), "Other"]))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an unknown flag is answered with the one nearest to it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            best = (error.possibilities or [])[:1]
            raise click.NoSuchOption(error.option_name, possibilities=best, ctx=ctx) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options a section: model, engine, server, index, other."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in self._titles}
        for parameter in self.get_params(ctx):
            if not isinstance(parameter, click.Option):
                continue  # MODEL is in the usage line and explained above
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections[parameter.title if isinstance(parameter, SettingOption) else "Other"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=34)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping them."""
        if self._examples:
            formatter.write(f"\n{self._examples.strip()}\n")


def serve_settings() -> tuple[str, ...]:
    """The names of the settings that a server reads: of those of an index only what a search needs, none of a check."""
    served = ("model", "engine", "server")
    return tuple(setting.name for setting in all_settings() if setting.section in served or setting.name in SEARCH)


def setting_options(names: Iterable[str] | None = None) -> Callable[[click.Command], click.Command]:
    """A decorator that adds the options of all settings, or of those named, and ``--config``."""
    wanted = None if names is None else frozenset(names)

    def add(command: click.Command) -> click.Command:
        chosen = [setting for setting in all_settings() if wanted is None or setting.name in wanted]
        command.params += [SettingOption(setting) for setting in chosen]
        command.params.append(
            click.Option(
                ["--config"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="TOML file with settings; its keys are the names of the flags.",
            )
        )
        return command

    return add


def read_settings(given: Mapping[str, Any], file: Path | None) -> Settings:
    """Settings from the values of the options, the environment and the file.

    Args:
        given: values by setting name, and the MODEL argument as ``model_argument``; None and empty tuples count as not
            given.
        file: the file behind ``--config``, or None.

    Raises:
        ConfigError: a value is wrong, or several models are named.
    """
    flags = {name: value for name, value in given.items() if value is not None and value != ()}
    argument = flags.pop("model_argument", None)
    models = dict.fromkeys([*([] if argument is None else [argument]), *flags.pop("model", ())])
    if models:
        flags["model"] = next(iter(models))
    return load_settings(flags, os.environ, file, list(models)[1:])


def _facts(setting: Setting) -> list[str]:
    """What stands in brackets behind the help text: the environment variable and the default."""
    default = default_words(setting)
    return [f"env {setting.variable}", *([f"default {default}"] if default else [])]


def default_words(setting: Setting) -> str:
    """The default as the help page shows it; empty where there is none."""
    if setting.default is None or setting.default == ():
        return ""
    if setting.is_switch:
        return "on" if setting.default else "off"
    return f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)


def _metavar(setting: Setting) -> str:
    return f"[{'|'.join(setting.choices)}]" if setting.choices else (setting.metavar or "TEXT")
