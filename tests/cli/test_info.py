"""`anydim info` on a small BERT with random weights: what it tells, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from anydim.cli.main import make_program
from anydim.kernels import Scaled
from tests.pipeline import Pipeline

WIDTH, INNER, LAYERS, VOCAB, POSITIONS = 96, 160, 2, 8, 40
CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "vocab_size": VOCAB,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-bert"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "[Q] ", "document": ""}, "default_prompt_name": "query"})
    )
    write_tokenizer(path)
    save_file(tensors(), path / "model.safetensors")
    return path


def write_tokenizer(path: Path) -> None:
    words = ["[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e"]
    tokenizer = Tokenizer(WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.save(str(path / "tokenizer.json"))


def tensors() -> dict[str, np.ndarray]:
    """All floating-point tensors of a BERT, a pooler that nobody loads, and the integers that old files carry."""
    shapes = {
        "embeddings.word_embeddings.weight": (VOCAB, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
    }
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (rows,)
        for name in ("attention.output.LayerNorm.weight", "attention.output.LayerNorm.bias"):
            shapes[f"encoder.layer.{layer}.{name}"] = shapes[f"encoder.layer.{layer}.{name[10:]}"] = (WIDTH,)
    random = np.random.default_rng(0)
    floats = {f"bert.{name}": random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    return floats | {"bert.embeddings.position_ids": np.arange(POSITIONS)}


def info(*words: object) -> Result:
    return CliRunner().invoke(make_program(), ["info", *map(str, words)])


def facts(*words: object) -> dict[str, object]:
    result = info("--json", *words)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_json_says_what_the_files_say(folder: Path) -> None:
    found = facts(folder)
    floats = sum(value.size for name, value in tensors().items() if value.dtype == np.float16 and "pooler" not in name)
    expected = {
        "name": "tiny-bert",
        "family": "bert",
        "architecture": "BertModel",
        "parameters": floats,
        "layers": LAYERS,
        "heads": 4,
        "width": WIDTH,
        "stored_dtype": "F16",
        "stored_bytes": (folder / "model.safetensors").stat().st_size,
        "dimensions": "a multiple of 32 between 32 and 96",
        "default_dimension": 96,
        "pooling": "mean",
        "max_tokens": POSITIONS,
        "prompts": {"query": "[Q] ", "document": ""},
        "default_prompt": "query",
        "instructions": False,
        "tokenizer": "tokenizers",
    }
    assert {key: found[key] for key in expected} == expected
    memory = found["memory"]
    assert isinstance(memory, dict)
    assert memory["float32"]["weights"] == 4 * floats
    assert memory["bfloat16"]["weights"] == 2 * floats


def test_weights_in_8_bits_take_what_is_told(folder: Path) -> None:
    model = Pipeline(folder, dtype=torch.bfloat16, quantization="int8").model
    taken = sum(value.nbytes for value in model.parameters())
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Scaled):
                taken += value.values_RC.nbytes + value.scale_R.nbytes
    memory = facts(folder)["memory"]
    assert isinstance(memory, dict)
    assert memory["int8 or fp8"]["weights"] == taken


def test_the_table_is_for_people(folder: Path) -> None:
    text = info(folder).output
    assert "tiny-bert" in text
    assert "a multiple of 32 between 32 and 96; by default 96" in text
    assert "query (default): '[Q] '" in text  # brackets are no markup
    assert "GiB free" in text


def test_settings_change_what_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYDIM_MAX_BATCH_TOKENS", "100")
    found = facts(folder, "--dim-step", "48", "--default-dim", "48", "--max-input-tokens", "20")
    assert found["dimensions"] == "a multiple of 48 between 48 and 96"
    assert (found["default_dimension"], found["max_tokens"]) == (48, 20)
    memory = found["memory"]
    assert isinstance(memory, dict)
    assert memory["float32"]["activations_cpu"] == memory["float32"]["activations_gpu"]


def test_shards_are_added_up(folder: Path) -> None:
    whole = facts(folder)
    names = sorted(tensors())
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    (folder / "model.safetensors").unlink()
    for file, part in halves.items():
        save_file({name: tensors()[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = facts(folder)
    assert (found["files"], found["parameters"]) == (2, whole["parameters"])


def test_a_wrong_setting_is_refused(folder: Path) -> None:
    result = info(folder, "--default-dim", "50")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --default-dim must be")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("config.json", Path.unlink, "is not a model folder"),
        ("config.json", lambda path: path.write_text("{"), "is not valid JSON"),
        ("config.json", lambda path: path.write_text(json.dumps(CONFIG | {"architectures": ["LlamaModel"]})), "Llama"),
        ("model.safetensors", Path.unlink, "model.safetensors is missing"),
        ("model.safetensors", cut_off, "is damaged"),
        ("tokenizer.json", Path.unlink, "tokenizer.json"),
    ],
)
def test_a_broken_folder_is_refused(folder: Path, file: str, damage: object, words: str) -> None:
    assert callable(damage)
    damage(folder / file)
    result = info(folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    result = info(tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "is not a folder" in result.stderr
