"""Command lines written for sglang.launch_server."""

import pytest

from anydim.cli.options import serve_settings
from anydim.cli.sglang import RENAMED, SEVERAL, SINGLE, SWITCHES, translate
from anydim.config import Settings, all_settings
from anydim.errors import ConfigError
from anydim.launch_server import main


def launch(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


def test_a_usual_command_line_runs(served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    line = "--model-path X --is-embedding --port 30001 --mem-fraction-static 0.85 --attention-backend triton"
    assert launch(*line.split(), "--disable-radix-cache", "--host", "0.0.0.0", "--trust-remote-code") == 0
    (settings,) = served
    assert (settings.model.model, settings.server.port, settings.server.host) == ("X", 30001, "0.0.0.0")
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in warnings] == [
        "--attention-backend",
        "--disable-radix-cache",
        "--trust-remote-code",
    ]
    assert all("has no meaning here and is ignored" in line for line in warnings)
    assert "no code from a model's folder is ever run" in warnings[-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--tp-size 1", ["--tp", "1"]),
        ("--tensor-parallel-size=1", ["--tp", "1"]),
        ("--data-parallel-size 1", ["--dp", "1"]),
        ("--context-length 512", ["--max-input-tokens", "512"]),
        ("--ssl-certfile c --ssl-keyfile k", ["--tls-cert", "c", "--tls-key", "k"]),
        ("--served-model-name n", ["--served-model-name", "n"]),
        ("--dtype half", ["--dtype", "float16"]),
        ("--dtype float", ["--dtype", "float32"]),
        ("--dtype bfloat16", ["--dtype", "bfloat16"]),
        ("--disable-cuda-graph", ["--no-cuda-graphs"]),
        ("--device cuda", ["--device", "cuda"]),
        ("--no-enable-tqdm", ["--no-enable-tqdm"]),
        ("--config a.toml", ["--config", "a.toml"]),
        ("--help", ["--help"]),
    ],
)
def test_what_means_the_same_is_renamed(line: str, expected: list[str]) -> None:
    translation = translate(line.split())
    assert list(translation.args) == expected
    assert translation.warnings == ()


@pytest.mark.parametrize(
    "line",
    [
        "--chunked-prefill-size -1",
        "--chunked-prefill-size=-1",
        "--lora-paths a=b c=d",
        "--enable-metrics",
        "--cuda-graph-bs 1 2 4 8",
        "--model-checksum",
    ],
)
def test_what_has_no_meaning_is_dropped_with_its_values(line: str) -> None:
    translation = translate([*line.split(), "--port", "1"])
    assert translation.args == ("--port", "1")
    assert len(translation.warnings) == 1
    assert translation.warnings[0].startswith(line.split()[0].split("=")[0])


def test_a_flag_given_twice_is_warned_about_once() -> None:
    assert len(translate(["--log-level", "info", "--log-level", "debug"]).warnings) == 1


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--model-pth", "--model-path"),
        ("--mem-frac", "--mem-fraction-static"),
        ("--disable-radix", "--disable-radix-cache"),
        ("--prot", "--port"),
    ],
)
def test_an_unknown_flag_names_the_nearest(word: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(word, "x") == 2
    assert capsys.readouterr().err == f"Error: unknown flag {word} (did you mean {near}?)\n"


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--port needs a value"):
        translate(["--port"])


def test_the_names_of_parallelism_are_sglangs_too() -> None:
    translation = translate(["--tp-size", "2", "--data-parallel-size", "4"])
    assert translation.args == ("--tp", "2", "--dp", "4")


def test_every_flag_of_ours_is_taken_as_it_stands() -> None:
    for setting in (setting for setting in all_settings() if setting.name in serve_settings()):
        words = [setting.flag] if setting.is_switch else [setting.flag, str(setting.default)]
        assert translate(words).args == tuple(words)


def test_the_tables_do_not_overlap() -> None:
    own = {setting.flag for setting in all_settings()}
    tables = [SWITCHES, SINGLE, SEVERAL, frozenset(RENAMED), frozenset(own)]
    assert sum(len(table) for table in tables) == len(frozenset().union(*tables))
    assert sum(len(table) for table in tables[:3]) > 150
