"""Load: from settings to a running engine in this process.

It knows the order of the steps: device, precision, weights, warm-up, loop. It knows no HTTP, no text and no sockets.

Legend: D full width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.embedding import Embedding
from anydim.engine.engine import DeviceMemory, Engine
from anydim.engine.fleet import Fleet
from anydim.engine.forms import derive
from anydim.engine.forward import Task
from anydim.engine.graphs import GraphBudget
from anydim.engine.kernel_cache import place_kernels
from anydim.engine.limits import ModelLimits
from anydim.engine.memory import Capacity, CudaMeter, capacity, lack_of_room, meter_of
from anydim.engine.mute import Mute
from anydim.engine.placing import rank_threads, ranks_device
from anydim.engine.policy import Policy
from anydim.engine.ranks import Others, Ranks
from anydim.engine.runner import Runner, WarmUp
from anydim.engine.scoring import Scoring
from anydim.engine.wire import Started
from anydim.errors import ConfigError
from anydim.models.build import build_model, resolve_device, resolve_dtype, weight_bytes
from anydim.models.card import ModelCard
from anydim.models.cost import token_cost
from anydim.models.packed import Model
from anydim.models.registry import cache_folder
from anydim.models.rotation import load_rotation
from anydim.models.score_head import load_score_head
from anydim.models.shards import Shard, shard_card
from anydim.models.weights import Progress
from anydim.progress import progress_bar

_TOKENS_HERE: Final = 1024  # what a graph takes: a few milliseconds

Rows = Sequence[tuple[ModelCard, ModelSettings]]
"""Models and how they are served."""


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
        slice_tokens=settings.slice_tokens or (8192 if device.type == "cuda" else 1024),
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
    rotation_DD = load_rotation(model.projection, card, device, check_model=model.load_format != "dummy")
    return Embedding(card.pooling, card.width, device, rotation_DD)


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
    rows: Rows,
    engine: EngineSettings,
    show_progress: bool,
    loaded: Model | None = None,
    *,
    scratch: Path | None = None,
    on_loss: Callable[[str], None] | None = None,
) -> tuple[Engine, Started]:
    """The same for several models behind one queue, on one device and in one memory; all weights are loaded first.

    With ``--tp`` this process is the first rank, and the others are started here, each with its part of every model.

    Args:
        rows: the models and how they are served.
        engine: where they run.
        show_progress: draw bars.
        loaded: the only model, where it is loaded already.
        scratch: a folder for what ranks share, which the caller removes in the end; by default one is made.
        on_loss: called with the reason when a rank ends before the engine runs, which would then wait for it.

    Raises:
        ConfigError: the settings do not fit the machine or a model.
        ModelError: a model's files are broken or not supported.
        ComputeFailed: a rank could not start.
    """
    if engine.dp > 1:
        raise ConfigError(f"--dp {engine.dp} (dp): several engines are a server's; in one process there is one engine")
    if engine.tp == 1:
        return _start(rows, engine, show_progress, loaded, None)
    for card, _ in rows:
        shard_card(card, engine.tp)  # says what does not fit before anything is started
    ranks = Ranks(rows, engine, ranks_device(engine, 0), scratch, on_loss)
    try:
        running, started = _start(rows, engine, show_progress, None, ranks)
    except BaseException:
        ranks.close()
        raise
    ranks.serve(running.lose)
    return running, started


def load_rank(rows: Rows, engine: EngineSettings, device: torch.device, shard: Shard) -> list[Runner]:
    """One further rank's part of each model, for what follows the first rank.

    Raises:
        ConfigError: the GPU has no room for it.
        ModelError: a model's files are broken or not supported.
    """
    _prepare(rows, engine, device)
    runners = [_load_runner(card, model, engine, device, False, None, shard) for card, model in rows]
    _share_graph_memory(runners)
    if device.type == "cuda" and _captures(engine):
        for runner, (card, model) in zip(runners, rows, strict=True):
            runner.make_graphs(batch_tokens(engine, device), _longest(card, model), several=True)
    return runners


def _prepare(rows: Rows, engine: EngineSettings, device: torch.device) -> None:
    threads = rank_threads(engine)
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        place_kernels(cache_folder(rows[0][1]), os.environ)
        torch.cuda.set_device(device)  # streams and events are those of the thread's device, which is the first one
        torch.empty(1, device=device)  # the driver's start, so that it does not count as loading


def _start(
    rows: Rows, engine: EngineSettings, show_progress: bool, loaded: Model | None, ranks: Ranks | None
) -> tuple[Engine, Started]:
    """Load, warm up, start the loop."""
    device = resolve_device(engine.device)
    began = time.perf_counter()
    _prepare(rows, engine, device)
    prepared = time.perf_counter()
    shard = None if ranks is None else Shard(rank=0, count=engine.tp, total=ranks.total)
    runners = [
        _load_runner(
            card, model, engine, device, show_progress, loaded, shard, None if ranks is None else ranks.of(place)
        )
        for place, (card, model) in enumerate(rows)
    ]
    _share_graph_memory(runners)
    if ranks is not None:
        ranks.join()
    weights_done = time.perf_counter()
    warmed = [
        _warm_up(runner, engine, _longest(card, model)) for runner, (card, model) in zip(runners, rows, strict=True)
    ]
    rooms = [room for room, _ in warmed]
    started = Started(
        device=("" if ranks is None else f"{engine.tp} x ") + _device_name(device),
        dtype=_precision(runners[0].dtype, rows[0][1]),
        device_seconds=prepared - began,
        weights_seconds=weights_done - prepared,
        warmup_seconds=time.perf_counter() - weights_done,
        kernels_seconds=sum(spent.kernels for _, spent in warmed),
        graphs_seconds=sum(spent.graphs for _, spent in warmed),
        batch_tokens=rooms[0].batch_tokens,
        weights_bytes=rooms[-1].weights_bytes,
        workspace_bytes=max(room.workspace_bytes for room in rooms),
        allowed_bytes=rooms[0].allowed_bytes,
        longest=rooms[0].longest,
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
        # A CPU's threads belong to the loop's thread; and a caller that is interrupted must not leave ranks waiting.
        tokens_here=_TOKENS_HERE if device.type == "cuda" and ranks is None else 0,
        may_run_here=partial(_computes_as_usual, device),
        after=partial(_let_go, device, ranks),
    )
    return running, started


def _let_go(device: torch.device, ranks: Ranks | None) -> None:
    """After the end: no rank stays, and what torch kept of the device's memory is there for other processes."""
    if ranks is not None:
        ranks.close()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _computes_as_usual(device: torch.device) -> bool:
    """Whether this thread works on the engine's device and its default stream, and has nothing set that changes how."""
    return (
        torch.cuda.current_device() == (device.index or 0)
        and torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
        and not torch.is_autocast_enabled("cuda")
        and torch.get_default_device().type == "cpu"
    )


def _share_graph_memory(runners: Sequence[Runner]) -> None:
    for runner in runners[1:]:
        runner.graph_memory = runners[0].graph_memory


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _longest(card: ModelCard, model: ModelSettings) -> int:
    """Tokens of the longest text."""
    return model.max_input_tokens or card.max_tokens


def _captures(engine: EngineSettings) -> bool:
    """Whether small batches become CUDA graphs, where the device can."""
    return engine.cuda_graphs and (engine.tp == 1 or engine.tp_cuda_graphs)


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
    shard: Shard | None = None,
    others: Others | None = None,
) -> Runner:
    """One model with its weights, or one rank's part of it, not yet warm."""
    dtype = resolve_dtype(model.dtype, device, card.family, model.force_float16)
    heads = shard is None or shard.rank == 0
    # Small, and says what is wrong with it before the weights come.
    task = make_task(card, model, device) if heads else Mute(card.pooling, card.width)
    if loaded is None:
        part = card if shard is None else shard_card(card, shard.count)
        with progress_bar(f"Loading {card.name}", show_progress) as progress:
            loaded = _load_model(part, model, engine, device, dtype, progress, shard)
    shares, prunes = engine.share_prefixes, engine.prune_last_layer
    return Runner(loaded, task, device, dtype, share_prefixes=shares, prune=prunes, others=others)


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
    shard: Shard | None,
) -> Model:
    """The model, or one rank's part of it, on its device.

    Raises:
        ConfigError: a GPU has no room for it; the message names the flag to change.
    """
    if device.type != "cuda":
        return build_model(card, model, device, dtype, engine.plain_ops, progress, shard)
    meter = CudaMeter(device, engine.mem_fraction_static)
    need = weight_bytes(card, dtype, model.quantization)
    lack = lack_of_room(need, meter.allowed - meter.taken, meter.total, meter.free, _smaller(model, dtype))
    if lack is None:
        try:
            return build_model(card, model, device, dtype, engine.plain_ops, progress, shard)
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
    spent = runner.warm_up(wanted, longest, _captures(settings), graphs)
    meter, asked = meter_of(runner.device, settings.mem_fraction_static), settings.max_batch_tokens is not None
    if meter is None:
        return Capacity(wanted), spent

    def probe(tokens: int) -> None:
        try:
            runner.probe(tokens, longest)
        except torch.OutOfMemoryError as error:
            if settings.tp == 1:
                raise
            # The other ranks wait within a sum: a smaller probe cannot follow.
            raise ConfigError(
                f"--tp {settings.tp} (tp): {tokens} tokens do not fit beside the weights: lower --max-batch-tokens"
            ) from error

    return capacity(meter, probe, wanted, asked, longest), spent


def _device_memory(device: torch.device) -> DeviceMemory:
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device), total
