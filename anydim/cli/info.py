"""Info: what a model is, which dimensions it serves, and how much memory it needs, as a table or as JSON.

It reads a model's files but not its weights, and imports no torch; what a GPU offers is therefore not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from anydim.cli.checkpoint import Checkpoint, read_checkpoint
from anydim.config import EngineSettings, Settings
from anydim.intake.intake import Intake
from anydim.intake.scoring import ScoreIntake, intake_of
from anydim.models.card import Family, ModelCard
from anydim.models.registry import find_model
from anydim.progress import progress_bar

_BYTES: Final = (("float32", 4), ("bfloat16", 2))
_EIGHT_BITS: Final = "int8 or fp8"  # --quantization, where the rest is bfloat16
_BATCH_TOKENS: Final = (("cpu", 2048), ("gpu", 16384))  # the engine's own defaults
_LONGEST_PROMPT: Final = 60


def show_info(settings: Settings, as_json: bool) -> None:
    """Print what is known of the model that the settings name.

    Raises:
        ModelError: the model is not there, broken or not supported.
        ConfigError: a setting does not fit the model.
    """
    with progress_bar("Preparing the model", not as_json) as progress:
        card = find_model(settings.model, progress)
    facts = collect(intake_of(card, settings.model), read_checkpoint(card.folder), settings.engine)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
    else:
        Console(markup=False, highlight=False).print(_table(facts))


def collect(intake: Intake | ScoreIntake, checkpoint: Checkpoint, engine: EngineSettings) -> dict[str, Any]:
    """Everything that `anydim info` tells, by its JSON name. Sizes are in bytes."""
    card, config = intake.card, intake.card.config
    return {
        "name": card.name,
        "folder": str(card.folder),
        "family": card.family.value,
        "architecture": (config.get("architectures") or [None])[0],
        "parameters": checkpoint.parameters,
        "layers": config.get("num_hidden_layers"),
        "heads": config.get("num_attention_heads"),
        "key_value_heads": config.get("num_key_value_heads", config.get("num_attention_heads")),
        "width": card.width,
        "stored_dtype": checkpoint.dtype,
        "stored_bytes": checkpoint.stored_bytes,
        "files": checkpoint.files,
        **_purpose(intake),
        "pooling": card.pooling.value,
        "normalized": card.normalized,
        "max_tokens": intake.max_tokens,
        "vocabulary": card.vocab_size,
        "prompts": dict(card.prompts),
        "default_prompt": card.default_prompt,
        "tokenizer": "fastokens" if intake.is_fast else "tokenizers",
        "memory": _memory(card, checkpoint, engine),
        "ram_bytes": psutil.virtual_memory().total,
        "ram_free_bytes": psutil.virtual_memory().available,
    }


def _purpose(intake: Intake | ScoreIntake) -> dict[str, Any]:
    """What the model does: dimensions of one that embeds, labels of one that scores."""
    if isinstance(intake, Intake):
        return {
            "task": "embed",
            "dimensions": intake.rule.allowed,
            "default_dimension": intake.rule.default,
            "labels": [],
            "instructions": intake.card.instruction_template is not None,
            "reason": None,
        }
    scorer = intake.scorer
    return {
        "task": "rerank" if scorer.is_reranker else "classify",
        "dimensions": None,
        "default_dimension": None,
        "labels": list(scorer.labels),
        "instructions": scorer.is_prompted,
        "reason": scorer.reason,
    }


def activation_values(card: ModelCard) -> int:
    """Values that a forward holds for one token at its widest place, from the layer's shapes.

    Qwen3 holds the residual stream beside gate, up and their product; where that is less, residual, normed and last
    states beside query, key, value and what attention makes of them. BERT holds the states around one block, the
    fused query, key and value, and the feed-forward before and after its activation.
    """
    config = card.config
    heads = int(config.get("num_attention_heads") or 1)
    head_dim = int(config.get("head_dim") or card.width // heads)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    attended, qkv = heads * head_dim, (heads + 2 * kv_heads) * head_dim
    inner = int(config.get("intermediate_size") or 4 * card.width)
    if card.family is Family.QWEN3:
        return max(card.width + 3 * inner, 3 * card.width + qkv + attended)
    return 2 * card.width + attended + qkv + 2 * inner


def _memory(card: ModelCard, checkpoint: Checkpoint, engine: EngineSettings) -> dict[str, dict[str, int]]:
    """Bytes by precision: the weights, and the activations of a full batch on a CPU and on a GPU."""
    values = activation_values(card)
    memory = {}
    for dtype, size in _BYTES:
        batches = {
            f"activations_{device}": values * size * (engine.max_batch_tokens or tokens)
            for device, tokens in _BATCH_TOKENS
        }
        memory[dtype] = {"weights": checkpoint.parameters * size, **batches}
    # One byte a value of the layers' products and a float32 a row of them; all else stays as it is.
    saved = checkpoint.products - 4 * checkpoint.product_rows
    memory[_EIGHT_BITS] = memory["bfloat16"] | {"weights": memory["bfloat16"]["weights"] - saved}
    return memory


def _table(facts: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _rows(facts):
        table.add_row(label, text)
    return table


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Model", facts["name"]
    yield "Folder", facts["folder"]
    yield "Architecture", f"{facts['architecture']} ({facts['family']})"
    yield "Parameters", f"{facts['parameters']:,}"
    yield "Shape", _shape(facts)
    yield "Stored", f"{facts['stored_dtype']}, {size_words(facts['stored_bytes'])} in {facts['files']} file(s)"
    if facts["task"] == "embed":
        yield "Dimensions", f"{facts['dimensions']}; by default {facts['default_dimension']}"
        yield "Pooling", f"{facts['pooling']}, {'' if facts['normalized'] else 'folder asks for no '}unit length"
    else:
        yield "Scores", f"{', '.join(facts['labels'])} ({facts['task']}), since {facts['reason']}"
    yield "Longest text", f"{facts['max_tokens']:,} tokens"
    yield "Tokenizer", f"{facts['tokenizer']}, vocabulary {facts['vocabulary']:,}"
    for index, (name, prompt) in enumerate(facts["prompts"].items()):
        mark = " (default)" if name == facts["default_prompt"] else ""
        yield "" if index else "Prompts", f"{name}{mark}: {_shortened(prompt)!r}"
    if not facts["prompts"]:
        yield "Prompts", "none"
    yield "Instructions", "understood" if facts["instructions"] else "not trained with them"
    for dtype, memory in facts["memory"].items():
        yield f"Memory {dtype}", _memory_words(memory)
    yield "RAM", f"{size_words(facts['ram_bytes'])}, of which {size_words(facts['ram_free_bytes'])} free"


def _shape(facts: Mapping[str, Any]) -> str:
    heads = str(facts["heads"])
    if facts["key_value_heads"] != facts["heads"]:
        heads += f" ({facts['key_value_heads']} for keys and values)"
    return f"{facts['layers']} layers, {heads} heads, width {facts['width']}"


def _memory_words(memory: Mapping[str, int]) -> str:
    weights, cpu, gpu = (size_words(memory[key]) for key in ("weights", "activations_cpu", "activations_gpu"))
    return f"{weights} weights; a full batch takes at least {cpu} more on a CPU, {gpu} on a GPU"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_PROMPT else text[: _LONGEST_PROMPT - 3] + "..."


def size_words(count: int) -> str:
    """Bytes in units of 1024, as memory is counted."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
