"""The files that describe a service: read by Ray's own schema, and checked against the fields of KubeRay's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from anydim.cli.main import make_program
from anydim.config import load_settings
from anydim.deploy.ray_serve import app
from anydim.deploy.service import BUILDER, settings_of
from anydim.errors import ConfigError

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/rayservice_schema.json").read_text())


def deploy(*words: str) -> Result:
    return CliRunner().invoke(make_program(), ["deploy", "ray", *words])


def printed(*words: str) -> Any:
    result = deploy(*words)
    assert result.exit_code == 0, result.output
    return yaml.safe_load(result.output)


def test_ray_reads_the_config_and_finds_the_same_service_in_it(starter_folder: Path) -> None:
    words = [str(starter_folder), "--device", "cpu", "--default-dim", "64", "--api-key-file", "keys.txt"]
    config = printed(*words, "--max-replicas", "8", "--target-queued-tokens", "5000", "--print", "serve")
    (application,) = ServeDeploySchema.model_validate(config).applications
    (deployment,) = application.deployments
    scaling = deployment.autoscaling_config
    assert isinstance(scaling, dict)
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 8)
    assert scaling["policy"]["policy_kwargs"] == {"target_queued_tokens": 5000}
    assert deployment.ray_actor_options.num_gpus == 0
    assert import_attr(application.import_path) is app
    flags = {"model": str(starter_folder), "device": "cpu", "default_dim": 64, "api_key_file": "keys.txt"}
    assert settings_of(application.args, {}) == load_settings(flags, {})


def test_the_builder_of_the_config_makes_the_deployment(starter_folder: Path) -> None:
    made = app({"model": str(starter_folder), "device": "cpu", "default-dim": 64})
    assert made._bound_deployment.name == "anydim"
    assert BUILDER == "anydim.deploy.ray_serve:app"


def test_the_manifest_has_the_fields_of_kuberay() -> None:
    manifest = printed("Qwen/Qwen3-Embedding-4B", "--min-replicas", "2", "--max-replicas", "8", "--print", "kuberay")
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)
    inner = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    assert inner.http_options.host == "0.0.0.0"
    cluster = manifest["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (2, 16)
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for template in (cluster["headGroupSpec"]["template"], workers["template"]):
        assert template["spec"]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "anydim-api-key"


def test_the_manifest_of_the_examples_is_what_its_command_prints() -> None:
    path = ROOT / "examples/kuberay.yaml"
    text = path.read_text()
    command = text.splitlines()[1].removeprefix("# anydim deploy ray ").split()
    assert "".join(line for line in text.splitlines(True) if not line.startswith("#")) == deploy(*command).output


def test_a_field_that_kuberay_does_not_know_is_found() -> None:
    manifest = printed("--print", "kuberay")
    manifest["spec"]["rayClusterConfig"]["workerGroups"] = []
    with pytest.raises(jsonschema.ValidationError, match="workerGroups"):
        jsonschema.Draft202012Validator(SCHEMA).validate(manifest)


def test_no_key_stands_in_a_file_and_none_is_read_from_one() -> None:
    for kind in ("serve", "kuberay"):
        assert "s3cret" not in deploy("--api-key", "s3cret", "--print", kind).output
    with pytest.raises(ConfigError, match="api_key_file"):
        settings_of({"api-key": "s3cret"}, {})


def test_settings_of_args_are_checked_like_all_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="default_dim"):
        settings_of({"defalt_dim": 64}, {})
    file = tmp_path / "anydim.toml"
    file.write_text("default_dim = 32\n[[models]]\nmodel = 'a'\n[[models]]\nmodel = 'b'\ndefault_dim = 64\n")
    settings = settings_of({"config": str(file), "strict": True}, {"ANYDIM_API_KEY": "k"})
    assert [model.model for model in settings.models] == ["a", "b"]
    assert settings.server.strict and settings.server.api_key == ("k",)
    result = deploy("--config", str(file), "--print", "serve")
    assert result.exit_code == 2
    assert "args: {config: PATH}" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-replicas", "3"], "more than --max-replicas 1"),
        (["-o", "x.yaml"], "--print"),
        (["--print", "kuberay", "-o", "/nowhere/x.yaml"], "cannot be written"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], said: str) -> None:
    result = deploy(*words)
    assert result.exit_code == 2
    assert said in result.output


def test_the_file_is_written(tmp_path: Path) -> None:
    assert deploy("--print", "serve", "-o", str(tmp_path / "serve.yaml")).exit_code == 0
    assert yaml.safe_load((tmp_path / "serve.yaml").read_text())["applications"][0]["name"] == "anydim"
