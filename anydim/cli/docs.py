"""Docs: writes docs/cli.md, docs/config.md and docs/metrics.md from the code, so that they cannot disagree.

It knows the command line, config.py and the lists of metrics; what stands on the pages is said there, not here.

Run: python -m anydim.cli.docs, or with --check to fail where a page is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click

from anydim.api.engine_metrics import ENGINE_METRICS
from anydim.api.metrics import HTTP_METRICS, Metric
from anydim.cli.main import make_program
from anydim.cli.options import HELP_WIDTH, default_words
from anydim.config import all_settings
from anydim.launch_server import make_command
from anydim.setting import Setting

FOLDER: Final = Path(__file__).parents[2] / "docs"

_WRITTEN: Final = "<!-- Written by `python -m anydim.cli.docs`; do not edit. -->"
_TITLES: Final = MappingProxyType(
    {"model": "The model", "engine": "The engine", "server": "The server", "index": "An index", "check": "A check"}
)
_CONFIG_INTRO: Final = """\
Each setting is a flag of the commands that it concerns, an environment variable and a key of the TOML file behind
`--config`. A flag goes before the environment, the environment before the file, the file before the default. An unknown
flag, variable or key is refused, with the nearest known name; an empty variable counts as unset.

- On the command line a repeatable flag is given several times; in a variable its values are separated by commas; in
  the file they are a list.
- A switch is `--strict` or `--no-strict`; in a variable and in the file it is `true` or `false`.
- Keys of the model may also stand in one `[[models]]` table.

```toml
port = 8080
api_key_file = "keys.txt"
max_queue_tokens = 200_000

[[models]]
model = "Qwen/Qwen3-Embedding-0.6B"
default_dim = 256
```
"""
_METRICS_INTRO: Final = """\
`GET /metrics` answers in Prometheus' text format, and in OpenMetrics where `Accept` asks for it. It is behind the key
like all other routes; a scrape configuration sends it as a bearer token:

```yaml
scrape_configs:
  - job_name: anydim
    authorization: {credentials_file: key.txt}
    static_configs: [{targets: ["127.0.0.1:30000"]}]
```

A histogram's name is followed by `_bucket`, `_sum` and `_count`. With several front ends any of them answers for all:
the numbers of HTTP are sums, those of the engine are the engine's own. With several engines (`--dp`) each of their
metrics has the label `engine`, so that `sum without (engine)` tells of all. A restarted engine begins at zero. The
process's own memory, CPU time and open files stand beside these as `process_*` where there is one front end.

[grafana-dashboard.json](grafana-dashboard.json) draws them; import it in Grafana and choose the data source.
"""


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    return {"cli.md": _cli_page(), "config.md": _config_page(), "metrics.md": _metrics_page()}


def main() -> None:
    """Write the pages, or with --check compare them; the exit code is 1 where one is stale."""
    stale = [name for name, text in pages().items() if _current(name) != text]
    if sys.argv[1:] == ["--check"]:
        for name in stale:
            print(f"docs/{name} is stale: run `make docs`", file=sys.stderr)
        sys.exit(1 if stale else 0)
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(pages()[name], encoding="utf-8")
        print(f"docs/{name} written")


def _current(name: str) -> str | None:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else None


def _cli_page() -> str:
    program = make_program()
    commands = [(title, command) for title, command in _commands("anydim", program) if not command.hidden]
    parts = ["# The command line", _WRITTEN]
    for title, command in [("anydim", program), *commands, ("python -m anydim.launch_server", make_command())]:
        parts.append(f"## `{title}`\n\n```\n{_help(title, command)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(title: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group with its whole name."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(f"{title} {name}", command)
        else:
            yield f"{title} {name}", command


def _help(title: str, command: click.Command) -> str:
    context = click.Context(command, info_name=title, terminal_width=HELP_WIDTH, **command.context_settings)
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def _config_page() -> str:
    parts = ["# Settings", _WRITTEN, _CONFIG_INTRO.strip()]
    for section, title in _TITLES.items():
        settings = [setting for setting in all_settings() if setting.section == section]
        parts.append(f"## {title}\n\n{_table(settings)}")
    return "\n\n".join(parts) + "\n"


def _metrics_page() -> str:
    parts = ["# Metrics", _WRITTEN, _METRICS_INTRO.strip()]
    for title, metrics in (("HTTP", HTTP_METRICS), ("The engine", ENGINE_METRICS)):
        rows = "\n".join(_metric_row(metric) for metric in metrics)
        parts.append(f"## {title}\n\n| Name | Kind | Labels | Meaning |\n|---|---|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def _metric_row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |"


def _table(settings: list[Setting]) -> str:
    head = "| Flag | Variable | Key | Value | Default | Meaning |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(_row(setting) for setting in settings)


def _row(setting: Setting) -> str:
    return "| " + " | ".join(_cells(setting)) + " |"


def _cells(setting: Setting) -> Iterator[str]:
    flag = f"{setting.flag}`, `--no-{setting.flag[2:]}" if setting.is_switch else setting.flag
    default = default_words(setting)
    yield from (f"`{flag}`", f"`{setting.variable}`", f"`{setting.name}`")
    yield setting.wanted
    yield f"`{default}`" if default else ""
    yield setting.help.replace("|", "\\|")


if __name__ == "__main__":
    main()
