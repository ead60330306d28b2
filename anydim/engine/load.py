"""Load: from settings to a running engine in this process.

It knows the order of the steps: device, precision, weights, warm-up, loop. It knows no HTTP, no text and no sockets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.embedding import Embedding
from anydim.engine.engine import DeviceMemory, Engine
from anydim.engine.fleet import Fleet
from anydim.engine.forms import derive
from anydim.engine.graphs import GraphBudget
from anydim.engine.kernel_cache import place_kernels
from anydim.engine.limits import ModelLimits
from anydim.engine.memory import Capacity, CudaMeter, capacity, lack_of_room
from anydim.engine.policy import Policy
from anydim.engine.runner import Runner, Task, WarmUp
from anydim.engine.scoring import Scoring
from anydim.engine.wire import Started
from anydim.errors import ConfigError
from anydim.models.build import build_model, load_rotation, resolve_device, resolve_dtype, weight_bytes
from anydim.models.card import ModelCard
from anydim.models.cost import token_cost
from anydim.models.packed import Model
from anydim.models.registry import cache_folder
from anydim.models.score_head import load_score_head
from anydim.models.weights import Progress
from anydim.progress import progress_bar

_TOKENS_HERE: Final = 1024  # what a graph takes: a few milliseconds


def batch_tokens(settings: EngineSettings, device: torch.device) -> int:
    """Most tokens in one forward that anyone wants: ``--max-batch-tokens``, else 16384 on a GPU and 2048 elsewhere."""
    return settings.max_batch_tokens or (16384 if device.type == "cuda" else 2048)


def make_policy(settings: EngineSettings, device: torch.device, most_tokens: int, raw_width: int) -> Policy:
    """The limits of the queue.

    Args:
        settings: what was asked for.
        device: where the model runs.
        most_tokens: most tokens of a forward that fit.
        raw_width: the width of raw vectors, 0 where there are none.
    """
    return Policy(
        batch_tokens=most_tokens,
        queue_tokens=settings.max_queue_tokens,
        slice_tokens=settings.slice_tokens or (8192 if device.type == "cuda" else 512),
        age_limit=settings.age_limit,
        raw_width=raw_width,
        always_raw=bool(raw_width and settings.vector_cache_mib),
    )


def make_task(card: ModelCard, model: ModelSettings, device: torch.device) -> Task:
    """What is made of a model's states: vectors, or scores where the folder holds a reranker or classifier.

    Raises:
        ModelError: the head's weights or the projection are broken.
    """
    if card.scorer is not None:
        return Scoring(card.pooling, len(card.scorer.labels), load_score_head(card, model.load_format, device))
    return Embedding(card.pooling, card.width, device, load_rotation(model.projection, card.width, device))


def load_engine(
    card: ModelCard, model: ModelSettings, engine: EngineSettings, show_progress: bool, loaded: Model | None = None
) -> tuple[Engine, Started]:
    """Load a model, warm it up, and start its engine in this process; ``loaded`` is one that is loaded already.

    Raises:
        ConfigError: the settings do not fit the machine or the model.
        ModelError: the model's files are broken or not supported.
    """
    return load_engines([(card, model)], engine, show_progress, loaded)


def load_engines(
    rows: Sequence[tuple[ModelCard, ModelSettings]],
    engine: EngineSettings,
    show_progress: bool,
    loaded: Model | None = None,
) -> tuple[Engine, Started]:
    """The same for several models behind one queue, on one device and in one memory; all weights are loaded first.

    Raises:
        ConfigError: the settings do not fit the machine or a model.
        ModelError: a model's files are broken or not supported.
    """
    if engine.threads:
        torch.set_num_threads(engine.threads)
    device = resolve_device(engine.device)
    began = time.perf_counter()
    if device.type == "cuda":
        place_kernels(cache_folder(rows[0][1]), os.environ)
        torch.cuda.set_device(device)  # streams and events are those of the thread's device, which is the first one
    runners = [_load_runner(card, model, engine, device, show_progress, loaded) for card, model in rows]
    weights_done = time.perf_counter()
    warmed = [
        _warm_up(runner, engine, model.max_input_tokens or card.max_tokens)
        for runner, (card, model) in zip(runners, rows, strict=True)
    ]
    rooms = [room for room, _ in warmed]
    started = Started(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        dtype=_precision(runners[0].dtype, rows[0][1]),
        weights_seconds=weights_done - began,
        warmup_seconds=time.perf_counter() - weights_done,
        kernels_seconds=sum(spent.kernels for _, spent in warmed),
        graphs_seconds=sum(spent.graphs for _, spent in warmed),
        batch_tokens=rooms[0].batch_tokens,
        weights_bytes=rooms[-1].weights_bytes,
        workspace_bytes=max(room.workspace_bytes for room in rooms),
        allowed_bytes=rooms[0].allowed_bytes,
    )
    policy = make_policy(engine, device, rooms[0].batch_tokens, _raw_width(rows[0][0]))
    several = len(rows) > 1
    running = Engine(
        Fleet(runners) if several else runners[0],
        replace(policy, models=_limits(rows, rooms)) if several else policy,
        # Where the device computes while it is called, a second batch would only hold the first one's answers back.
        engine.batches_in_flight if device.type == "cuda" else 1,
        derive=derive,
        cache_bytes=engine.vector_cache_mib << 20,
        memory=partial(_device_memory, device) if device.type == "cuda" else None,
        longest=rooms[0].longest if not several else None,
        tokens_here=_TOKENS_HERE if device.type == "cuda" else 0,  # a CPU's thread pool belongs to the loop's thread
    )
    return running, started


def _precision(dtype: torch.dtype, model: ModelSettings) -> str:
    """The weights' precision in words, and that of the products where it is another."""
    name = str(dtype).removeprefix("torch.")
    return name if model.quantization == "none" else f"{name} with {model.quantization} products"


def _load_runner(
    card: ModelCard,
    model: ModelSettings,
    engine: EngineSettings,
    device: torch.device,
    show_progress: bool,
    loaded: Model | None,
) -> Runner:
    """One model with its weights, not yet warm."""
    dtype = resolve_dtype(model.dtype, device, card.family, model.force_float16)
    with progress_bar(f"Loading {card.name}", show_progress) as progress:
        if loaded is None:
            loaded = _load_model(card, model, engine, device, dtype, progress)
        task = make_task(card, model, device)
    return Runner(loaded, task, device, dtype, share_prefixes=engine.share_prefixes, prune=engine.prune_last_layer)


def _limits(rows: Sequence[tuple[ModelCard, ModelSettings]], rooms: Sequence[Capacity]) -> tuple[ModelLimits, ...]:
    """The limits of each of several models; a token costs what it does beside one of the first model."""
    first = token_cost(rows[0][0])
    return tuple(
        ModelLimits(
            batch_tokens=room.batch_tokens,
            raw_width=_raw_width(card),
            per_token=token_cost(card) / first,
            longest=room.longest,
        )
        for (card, _), room in zip(rows, rooms, strict=True)
    )


def _raw_width(card: ModelCard) -> int:
    """The width of raw vectors; 0 of a model that scores: no score is a form of another one."""
    return card.width if card.scorer is None else 0


def _load_model(
    card: ModelCard,
    model: ModelSettings,
    engine: EngineSettings,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> Model:
    """The model on its device.

    Raises:
        ConfigError: a GPU has no room for it; the message names the flag to change.
    """
    if device.type != "cuda":
        return build_model(card, model, device, dtype, engine.plain_ops, progress)
    meter = CudaMeter(device, engine.mem_fraction_static)
    need = weight_bytes(card, dtype, model.quantization)
    lack = lack_of_room(need, meter.allowed - meter.taken, meter.total, meter.free, _smaller(model, dtype))
    if lack is None:
        try:
            return build_model(card, model, device, dtype, engine.plain_ops, progress)
        except torch.OutOfMemoryError:  # its frames hold what was loaded so far
            lack = (
                "the GPU's memory does not suffice for the weights: raise --mem-fraction-static, or take a larger GPU"
            )
    raise ConfigError(lack)


def _smaller(model: ModelSettings, dtype: torch.dtype) -> str | None:
    """The flag that makes the weights smaller."""
    if model.quantization != "none":
        return None
    return "--quantization int8" if dtype.itemsize == 2 else "--dtype bfloat16"


def _warm_up(runner: Runner, settings: EngineSettings, longest: int) -> tuple[Capacity, WarmUp]:
    """Compile and capture, then find out how much fits at once; what fits, and the seconds of the first two.

    Raises:
        ConfigError: beside the weights the GPU has no room for a batch.
    """
    wanted = batch_tokens(settings, runner.device)
    graphs = GraphBudget(settings.graph_seconds, settings.graph_mib << 20)
    spent = runner.warm_up(wanted, longest, settings.cuda_graphs, graphs)
    if runner.device.type != "cuda":
        return Capacity(wanted), spent
    meter, asked = CudaMeter(runner.device, settings.mem_fraction_static), settings.max_batch_tokens is not None
    return capacity(meter, lambda tokens: runner.probe(tokens, longest), wanted, asked, longest), spent


def _device_memory(device: torch.device) -> DeviceMemory:
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device), total
