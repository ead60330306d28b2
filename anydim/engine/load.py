"""Load: from settings to a running engine in this process.

It knows the order of the steps: device, precision, weights, warm-up, loop. It knows no HTTP, no text and no sockets.

Legend: D hidden width.
"""

from __future__ import annotations

import time

import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.engine import Engine
from anydim.engine.runner import Runner
from anydim.engine.wire import Started
from anydim.models.build import build_model, load_rotation, resolve_device, resolve_dtype
from anydim.models.card import ModelCard
from anydim.models.packed import Model
from anydim.progress import progress_bar


def batch_tokens(settings: EngineSettings, device: torch.device) -> int:
    """Most tokens in one forward: ``--max-batch-tokens``, else 16384 on a GPU and 2048 elsewhere."""
    return settings.max_batch_tokens or (16384 if device.type == "cuda" else 2048)


def load_engine(
    card: ModelCard, model: ModelSettings, engine: EngineSettings, show_progress: bool, loaded: Model | None = None
) -> tuple[Engine, Started]:
    """Load a model, warm it up, and start its engine in this process; ``loaded`` is one that is loaded already.

    Raises:
        ConfigError: the settings do not fit the machine or the model.
        ModelError: the model's files are broken or not supported.
    """
    if engine.threads:
        torch.set_num_threads(engine.threads)
    device = resolve_device(engine.device)
    dtype = resolve_dtype(model.dtype, device, card.family, model.force_float16)
    began = time.perf_counter()
    with progress_bar(f"Loading {card.name}", show_progress) as progress:
        if loaded is None:
            loaded = build_model(card, model, device, dtype, engine.plain_ops, progress)
        rotation_DD = load_rotation(model.projection, card.width, device)
    weights_done = time.perf_counter()
    runner = Runner(
        loaded,
        card.pooling,
        card.width,
        device,
        dtype,
        rotation_DD,
        share_prefixes=engine.share_prefixes,
        prune=engine.prune_last_layer,
    )
    budget = batch_tokens(engine, device)
    runner.warm_up(budget, model.max_input_tokens or card.max_tokens, engine.cuda_graphs)
    started = Started(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        dtype=str(dtype).removeprefix("torch."),
        weights_seconds=weights_done - began,
        warmup_seconds=time.perf_counter() - weights_done,
    )
    return Engine(runner, budget, engine.max_queue_tokens, engine.batches_in_flight), started
