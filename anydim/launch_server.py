"""Entrance for command lines written for `sglang.launch_server`: only the program's name changes.

Takes the flags of `anydim serve` and SGLang's; it knows neither, see cli/sglang.py.

Run: python -m anydim.launch_server --model-path Qwen/Qwen3-Embedding-0.6B --is-embedding --port 30000
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from anydim.cli.main import clear_errors, run_serve
from anydim.cli.options import SettingCommand, serve_settings, setting_options
from anydim.cli.sglang import translate

_EXAMPLES: Final = """\
Example:
  python -m anydim.launch_server --model-path Qwen/Qwen3-Embedding-0.6B --is-embedding --port 30000
"""


def make_command() -> click.Command:
    """`anydim serve` without its MODEL argument, under this module's name."""
    text = (
        "Serve embeddings over HTTP, from a command line written for sglang.launch_server.\n\n--model-path and the "
        "other spellings of SGLang are read as well; a flag without a meaning here is accepted with a warning."
    )
    return setting_options(serve_settings())(
        SettingCommand("launch_server", examples=_EXAMPLES, callback=run_serve, help=text)
    )


def main(args: Sequence[str] | None = None) -> None:
    """Translate the command line, warn about what was dropped, and serve."""
    program = "python -m anydim.launch_server"
    try:
        with clear_errors():
            translation = translate(sys.argv[1:] if args is None else args)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    for warning in translation.warnings:
        click.echo(f"Warning: {warning}", err=True)
    make_command().main(list(translation.args), prog_name=program)


if __name__ == "__main__":
    main()
