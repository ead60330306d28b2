"""The `anydim` command: its subcommands, and what they say when something is wrong.

It parses and reports; the work is in the files beside it, imported when a command runs, so that help is quick. Imports
no torch.

Run: anydim --help
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from anydim import __version__
from anydim.cli.deploy_options import deploy_group, scale_of
from anydim.cli.embed_options import embed_command, job_of, pool_of
from anydim.cli.job_options import spare_memory
from anydim.cli.options import CONTEXT, LIBRARY, SEARCH, SettingCommand, read_settings, serve_settings, setting_options
from anydim.cli.quality_options import (
    advise_command,
    advise_job_of,
    check_command,
    check_job_of,
    fit_command,
    fit_job_of,
)
from anydim.cli.rerank_options import rerank_command, rerank_job_of
from anydim.cli.signals import leaving_readers_behind, stopping_on_sigterm
from anydim.config import all_settings
from anydim.errors import AnydimError, ConfigError

LATER: Final = ("bench",)

_SERVE_EXAMPLES: Final = """\
A flag goes before its ANYDIM_* variable, the variable before the file, the file before the default.

Examples:
  anydim serve
  anydim serve Qwen/Qwen3-Embedding-0.6B --default-dim 256
  anydim serve ./my-model --host 0.0.0.0 --api-key-file keys.txt
  anydim serve --db ./papers
  ANYDIM_PORT=8080 anydim serve --max-input-tokens 512

Then, from another terminal:
  curl http://127.0.0.1:30000/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{"input": ["hello", "world"], "output_dim": [32, 64]}'
"""
_INFO_EXAMPLES: Final = """\
Examples:
  anydim info
  anydim info Qwen/Qwen3-Embedding-0.6B
  anydim info ./my-model --json
"""
_INFO_SETTINGS: Final = ("revision", "cache", "default_dim", "dim_step", "max_input_tokens")


_TEXT_FIELD: Final = "Field of a row that holds text; repeatable, the texts are joined. [default text]"
_ID_FIELD: Final = "Field of a row that holds its id; without one it is named FILE:ROW. [default id]"
_WHERE: Final = "Only documents whose metadata fulfil this; also !=, <, <=, >, >=; repeatable, all must hold."
_INDEX_EXAMPLES: Final = """\
Examples:
  anydim index docs.jsonl --db ./papers
  anydim index ./handbook --db ./papers --model Qwen/Qwen3-Embedding-0.6B --chunk-tokens 512
  anydim index articles.parquet --db ./papers --text-field title --text-field body --id-field doi
  anydim index docs.jsonl --db postgresql://me@localhost/app --collection papers
  anydim index --db ./papers --delete paper-17

A run that was stopped goes on where it was when it is started again.
"""
_SEARCH_EXAMPLES: Final = """\
Examples:
  anydim search "how do I sort a list?" --db ./papers
  anydim search "tax law" --db ./papers --where lang=en --where 'year>=2020' --per-document
  anydim search "tax law" --db ./papers --reranker Qwen/Qwen3-Reranker-0.6B --rerank-candidates 30
  anydim search "tax law" --db ./papers --candidates 500 --top-k 3 --json
"""


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn our errors into one line on standard error and an exit code: 2 for wrong settings, 1 for the rest."""
    try:
        yield
    except AnydimError as error:
        click.echo(f"Error: {error.message}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt as stopped:
        number = next((each for each in stopped.args if isinstance(each, int)), signal.SIGINT)
        raise click.exceptions.Exit(128 + number) from None


def run_serve(config: Path | None, **given: Any) -> None:
    """Serve a model until a signal comes; the callback of `serve` and of launch_server."""
    with clear_errors():
        settings = read_settings(given, config)
        from anydim.cli.serve import serve_forever

        sys.exit(serve_forever(settings))


def _run_info(config: Path | None, as_json: bool, **given: Any) -> None:
    with clear_errors():
        settings = read_settings(given, config)
        from anydim.cli.info import show_info

        show_info(settings, as_json)


def _run_index(config: Path | None, **given: Any) -> None:
    with clear_errors():
        own = {name: given.pop(name) for name in ("docs", "text_field", "id_field", "prune", "delete")}
        settings = read_settings(given, config)
        from anydim.cli.index import IndexJob, run_index

        sys.exit(run_index(settings, IndexJob(**own)))


def _run_search(config: Path | None, **given: Any) -> None:
    with clear_errors():
        own = {
            name: given.pop(name) for name in ("query", "where", "instruction", "per_document", "reranker", "as_json")
        }
        settings = read_settings(given, config)
        from anydim.cli.search import SearchJob, run_search

        run_search(settings, SearchJob(**own))


def _run_embed(config: Path | None, **given: Any) -> None:
    spare_memory()
    with leaving_readers_behind(), clear_errors(), stopping_on_sigterm():
        job, pool = job_of(given), pool_of(given)
        settings = read_settings(given, config)
        from anydim.cli.embed import run_embed

        sys.exit(run_embed(settings, job, pool))


def _run_deploy_ray(config: Path | None, **given: Any) -> None:
    with clear_errors(), stopping_on_sigterm():
        own = {name: given.pop(name) for name in ("address", "kind", "output", "image")}
        scale = scale_of(given)
        settings = read_settings(given, config)
        from anydim.cli.deploy import DeployJob, run_deploy

        sys.exit(run_deploy(settings, DeployJob(scale=scale, **own)))


def _run_rerank(config: Path | None, **given: Any) -> None:
    spare_memory()
    with leaving_readers_behind(), clear_errors(), stopping_on_sigterm():
        job = rerank_job_of(given)
        settings = read_settings(given, config)
        from anydim.cli.rerank import run_rerank

        sys.exit(run_rerank(settings, job))


def _run_advise(config: Path | None, **given: Any) -> None:
    with clear_errors():
        job = advise_job_of(given)
        settings = read_settings(given, config)
        from anydim.cli.advise import run_advise

        run_advise(settings, job)


def _run_check(config: Path | None, **given: Any) -> None:
    with clear_errors():
        job = check_job_of(given)
        settings = read_settings(given, config)
        from anydim.cli.check import run_check

        sys.exit(run_check(settings, job))


def _run_fit(config: Path | None, **given: Any) -> None:
    with clear_errors():
        job = fit_job_of(given)
        settings = read_settings(given, config)
        from anydim.cli.fit import run_fit

        run_fit(settings, job)


def _run_version() -> None:
    click.echo(f"anydim {__version__}")


def _run_later(ctx: click.Context) -> None:
    click.echo(f"anydim {ctx.info_name}: not yet available in this version", err=True)
    ctx.exit(2)


def _model_argument() -> click.Argument:
    return click.Argument(["model_argument"], metavar="[MODEL]", required=False)


def _serve_command() -> click.Command:
    text = (
        "Serve embeddings over HTTP.\n\nMODEL is a hub id or a local folder. Without it the small starter model "
        "is served, which needs no download where its package is installed."
    )
    command = SettingCommand(
        "serve", examples=_SERVE_EXAMPLES, callback=run_serve, params=[_model_argument()], help=text
    )
    return setting_options(serve_settings())(command)


def _info_command() -> click.Command:
    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object.")
    command = SettingCommand(
        "info",
        examples=_INFO_EXAMPLES,
        callback=_run_info,
        params=[_model_argument()],
        help="Show what a model is, which dimensions it serves and how much memory it needs.",
    )
    setting_options(_INFO_SETTINGS)(command)
    command.params.append(as_json)
    return command


def _index_command() -> click.Command:
    own: list[click.Parameter] = [
        click.Argument(["docs"], metavar="[DOCS]...", nargs=-1, type=click.Path(path_type=Path)),
        click.Option(["--text-field"], multiple=True, default=("text",), metavar="FIELD", help=_TEXT_FIELD),
        click.Option(["--id-field"], default="id", metavar="FIELD", help=_ID_FIELD),
        click.Option(["--prune"], is_flag=True, help="Remove documents of the index that DOCS do not hold."),
        click.Option(["--delete"], multiple=True, metavar="ID", help="Remove a document; repeatable."),
    ]
    text = (
        "Make documents searchable.\n\nDOCS are JSONL, CSV, Parquet, text and Markdown files, or folders of them. "
        "Their texts are cut into chunks and embedded into the index at --db. Documents that are there already are "
        "updated where they have changed."
    )
    return _index_based("index", _INDEX_EXAMPLES, _run_index, own, text, _settings_of("index"))


def _search_command() -> click.Command:
    own: list[click.Parameter] = [
        click.Argument(["query"]),
        click.Option(["--where"], multiple=True, metavar="FIELD=VALUE", help=_WHERE),
        click.Option(["--instruction"], metavar="TEXT", help="The task, for models trained with instructions."),
        click.Option(["--per-document"], is_flag=True, help="At most one hit a document."),
        click.Option(["--reranker"], metavar="MODEL", help="A reranking model for a third stage."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object."),
    ]
    text = (
        "Search an index.\n\nThe first stage scans vectors of few components, the second compares all components of "
        "the candidates, and a reranker, where one is named, reads the best of these with the query. Each stage says "
        "how many chunks it kept and how long it took."
    )
    return _index_based("search", _SEARCH_EXAMPLES, _run_search, own, text, (*SEARCH, "rerank_candidates"))


def _index_based(
    name: str,
    examples: str,
    callback: Callable[..., None],
    own: list[click.Parameter],
    text: str,
    asked: tuple[str, ...],
) -> click.Command:
    command = SettingCommand(
        name, examples=examples, first=("Other", "Index"), callback=callback, params=own, help=text
    )
    return setting_options((*asked, *LIBRARY))(command)


def _settings_of(section: str) -> tuple[str, ...]:
    return tuple(setting.name for setting in all_settings() if setting.section == section)


def _version_command() -> click.Command:
    return click.Command("version", callback=_run_version, help="Print the version.", context_settings=dict(CONTEXT))


def _later_command(name: str) -> click.Command:
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    return click.Command(name, callback=click.pass_context(_run_later), hidden=True, context_settings=settings)


def make_program() -> click.Group:
    """The whole command line."""
    program = click.Group(
        "anydim",
        help="Text embeddings of any dimension from one copy of the weights.",
        epilog=f"Not yet available in this version: {', '.join(LATER)}.",
        context_settings=dict(CONTEXT),
    )
    click.version_option(__version__, prog_name="anydim", message="%(prog)s %(version)s")(program)
    commands = (_serve_command(), _info_command(), _index_command(), _search_command(), deploy_group(_run_deploy_ray))
    for command in (*commands, embed_command(_run_embed), rerank_command(_run_rerank)):
        program.add_command(command)
    for command in (advise_command(_run_advise), check_command(_run_check), fit_command(_run_fit)):
        program.add_command(command)
    for command in (_version_command(), *map(_later_command, LATER)):
        program.add_command(command)
    return program


def main() -> None:
    """The entry point of the `anydim` command."""
    make_program()(prog_name="anydim")
