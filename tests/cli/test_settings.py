"""Settings from flags, environment and TOML: which goes first, what is refused, and in which words."""

from pathlib import Path

import pytest

from anydim.config import Settings, all_settings, load_settings
from anydim.errors import ConfigError
from anydim.setting import Setting

from .conftest import Serve


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold(serve: Serve) -> None:
    assert serve() == Settings()


def test_flag_before_variable_before_file_before_default(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.toml", 'port = 1\nhost = "a"\ndevice = "cpu"\n')
    monkeypatch.setenv("ANYDIM_PORT", "2")
    monkeypatch.setenv("ANYDIM_HOST", "b")
    settings = serve("--config", str(file), "--port", "3")
    assert settings.server.port == 3
    assert settings.server.host == "b"
    assert settings.engine.device == "cpu"
    assert settings.server.max_body_bytes == Settings().server.max_body_bytes


def test_a_switch_can_be_turned_off_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIM_STRICT", "yes")
    monkeypatch.setenv("ANYDIM_ENABLE_TQDM", "off")
    assert serve().server.strict is True
    assert serve("--no-strict").server.strict is False
    assert serve().server.enable_tqdm is False
    assert serve("--enable-tqdm").server.enable_tqdm is True


def test_repeatable_settings_from_each_source(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one.toml", 'api-key = "a"\n')
    two = write(tmp_path / "two.toml", 'api_key = ["a", "b"]\n')
    assert serve("--config", str(one)).server.api_key == ("a",)
    assert serve("--config", str(two)).server.api_key == ("a", "b")
    assert serve("--api-key", "c", "--api-key", "d").server.api_key == ("c", "d")
    monkeypatch.setenv("ANYDIM_API_KEY", "e, f")
    assert serve().server.api_key == ("e", "f")


def test_an_empty_variable_counts_as_unset(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in all_settings():
        monkeypatch.setenv(setting.variable, "")
    assert serve() == Settings()


def test_the_model_is_an_argument_or_a_flag(serve: Serve) -> None:
    assert serve("some/model").model.model == "some/model"
    assert serve("--model", "some/model").model.model == "some/model"
    assert serve("some/model", "--model", "some/model").model.model == "some/model"


def test_several_models_share_what_is_not_each_one_s_own(serve: Serve) -> None:
    settings = serve("a", "--model", "b", "--reranker", "c", "--dtype", "float32", "--default-dim", "64")
    assert [model.model for model in settings.models] == ["a", "b", "c"]
    assert [model.task for model in settings.models] == ["auto", "auto", "rerank"]
    assert [model.dtype for model in settings.models] == ["float32"] * 3
    assert [model.default_dim for model in settings.models] == [64, None, None]


def test_a_reranker_stands_beside_the_starter_model(serve: Serve) -> None:
    assert [model.model for model in serve("--reranker", "r").models] == [None, "r"]


def test_each_models_table_has_its_own_settings(serve: Serve, tmp_path: Path) -> None:
    text = """
dtype = "float32"
[[models]]
model = "a"
default_dim = 64
[[models]]
model = "b"
default_dim = 128
served_model_name = "second"
[[models]]
model = "c"
task = "rerank"
dtype = "bfloat16"
"""
    first, second, third = serve("--config", str(write(tmp_path / "a.toml", text))).models
    assert (first.default_dim, second.default_dim, third.default_dim) == (64, 128, None)
    assert (second.served_model_name, third.task) == (("second",), "rerank")
    assert (second.dtype, third.dtype) == ("float32", "bfloat16")


def test_models_table(serve: Serve, tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'port = 1\n[[models]]\nmodel = "x/y"\ndefault_dim = 64\n')
    settings = serve("--config", str(file))
    assert (settings.server.port, settings.model.model, settings.model.default_dim) == (1, "x/y", 64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "unknown key prot (did you mean port?)"),
        ('port = "x"', "port in FILE must be a whole number from 0 to 65535, got 'x'"),
        ("port = [", "is not valid TOML"),
        ("[server]\nport = 1", "there is no table [server]"),
        ("[[models]]\nport = 1", "unknown key port"),
        ("[[models]]\n[[models]]", "of several [[models]] tables each needs its model"),
        ('[[models]]\n[[models]]\nmodel = "x"\ndim_stp = 1', "unknown key dim_stp"),
        ('model = "a"\n[[models]]\nmodel = "b"', "model stands both at the top and in [[models]]"),
        ("models = 1", "models must be [[models]] tables"),
        ("strict = 3", "strict in FILE must be true or false, got 3"),
        ("host = 3", "host in FILE must be text, got 3"),
        ("api_key = 3", "api_key in FILE must be text, or a list of texts, got 3"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {}, file)
    assert words.replace("FILE", str(file)) in caught.value.message


@pytest.mark.parametrize("name", ["missing.toml", "a.yaml"])
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load_settings({}, {}, tmp_path / name)


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("ANYDIM_PROT", "1", "unknown environment variable ANYDIM_PROT (did you mean ANYDIM_PORT?)"),
        ("ANYDIM_PORT", "70000", "ANYDIM_PORT must be a whole number from 0 to 65535, got '70000'"),
        ("ANYDIM_DTYPE", "int4", "ANYDIM_DTYPE must be one of auto, float32, bfloat16, float16, got 'int4'"),
        ("ANYDIM_STRICT", "perhaps", "ANYDIM_STRICT must be true or false, got 'perhaps'"),
        ("ANYDIM_TP", "0", "ANYDIM_TP must be a whole number from 1 to 64, got '0'"),
    ],
)
def test_a_wrong_variable_is_refused(variable: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, {variable: text})
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("default_dim", "half", "--default-dim must be a whole number of at least 1 or native, got 'half'"),
        ("default_dim", "0", "--default-dim must be a whole number of at least 1 or native, got '0'"),
        ("max_queue_tokens", "-5", "--max-queue-tokens must be a whole number of at least 1, got '-5'"),
        ("mem_fraction_static", "1.5", "--mem-fraction-static must be a number from 0.01 to 1, got '1.5'"),
        ("watchdog_timeout", "nan", "--watchdog-timeout must be a number of at least 1, got 'nan'"),
    ],
)
def test_a_wrong_flag_is_refused(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({name: value}, {})
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("default_dim", "native", "native"),
        ("default_dim", "256", 256),
        ("mem_fraction_static", ".85", 0.85),
        ("watchdog_timeout", "30", 30.0),
        ("max_batch_tokens", "512", 512),
    ],
)
def test_text_becomes_the_field_s_type(name: str, value: str, kept: object) -> None:
    settings = load_settings({name: value}, {})
    assert getattr(settings.model, name, getattr(settings.engine, name, None)) == kept


@pytest.mark.parametrize("setting", list(all_settings()), ids=lambda setting: setting.name)
def test_every_setting_says_what_it_is(setting: Setting) -> None:
    assert setting.help.endswith(".")
    assert setting.wanted
    assert load_settings({setting.name: setting.default}, {}) == Settings()


def test_an_empty_variable_for_keys_does_not_open_a_keyed_server(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('api_key = ["secret"]')
    assert load_settings({}, {"ANYDIM_API_KEY": ""}, file).server.api_key == ("secret",)
    with pytest.raises(ConfigError, match="ANYDIM_API_KEY"):
        load_settings({}, {"ANYDIM_API_KEY": " , "}, file)
