"""Settings: each default in one place, as fields of frozen dataclasses.

Command-line flags, ANYDIM_* environment variables, TOML keys and the generated pages docs/cli.md and docs/config.md are
all derived from the fields below. A flag goes before the environment, the environment before the file, the file before
the default. This file knows no models, devices or HTTP.

Source of the names: SGLang's server arguments where they mean the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_type_hints

from anydim.errors import ConfigError
from anydim.setting import Setting
from anydim.sources import from_environment, from_file
from anydim.sources import nearest as nearest

_OWN: Final = ("model", "served_model_name", "reranker", "task", "revision", "projection", "token_ids")
_OWN_LIMITS: Final = ("default_dim", "max_input_tokens")


def _setting(
    default: Any,
    text: str,
    metavar: str | None = None,
    least: float = 1,
    most: float | None = None,
) -> Any:
    """A field with its help text; numbers are bounded."""
    meta = {"help": text, "metavar": metavar, "least": least, "most": most}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model: which one, and how it is served."""

    model: str | None = _setting(
        None, "Hub id or local folder. Without it the starter model is served.", metavar="MODEL"
    )
    served_model_name: tuple[str, ...] = _setting(
        (), "A further name that requests may use; repeatable; * accepts every name.", metavar="NAME"
    )
    reranker: tuple[str, ...] = _setting((), "A reranking model beside the others; repeatable.", metavar="MODEL")
    task: Literal["auto", "embed", "rerank"] = _setting(
        "auto", "What the model is for; auto reads it from the model's own files."
    )
    rerank_template: Literal["single", "evaluation"] = _setting(
        "single",
        "Prompt of Qwen3 rerankers: the model card's, with single newlines, or that of Qwen's evaluation code.",
    )
    revision: str | None = _setting(None, "Branch, tag or commit on the hub.", metavar="REV")
    cache: str | None = _setting(
        None,
        "Folder for converted models and compiled kernels; by default anydim below the user's cache folder.",
        metavar="DIR",
    )
    load_format: Literal["auto", "dummy"] = _setting(
        "auto", "dummy makes random weights from config.json alone, for benchmarks."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _setting(
        "auto", "Precision of the weights. auto is bfloat16 where the device is good at it, else float32."
    )
    force_float16: bool = _setting(False, "Allow float16 for Qwen3, which overflows on some texts.")
    quantization: Literal["none", "int8", "fp8"] = _setting(
        "none", "Precision of the products below 16 bits: weights with a scale a channel, tokens with one a token."
    )
    projection: str | None = _setting(
        None, "Safetensors file with a fitted `rotation`, applied before the cut.", metavar="FILE"
    )
    default_dim: int | Literal["native"] | None = _setting(
        None,
        "Dimension of requests that name none: a number, or native for the width; by default the width, at most 1024.",
        metavar="D",
    )
    dim_step: int = _setting(32, "Allowed dimensions are multiples of this, and the width itself.", metavar="N")
    max_input_tokens: int | None = _setting(
        None, "Longest text, special tokens included; by default what the model's files say.", metavar="N"
    )
    token_ids: Literal["refuse", "model", "cl100k"] = _setting(
        "refuse",
        "Token ids as input: refuse them, take them as the model's own, or decode OpenAI's cl100k ids "
        "and tokenise anew.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The engine: where it runs and how much it takes at once."""

    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
    max_batch_tokens: int | None = _setting(
        None,
        "Most tokens in one forward; by default 16384 on a GPU, or less where less fits, and 2048 on a CPU.",
        metavar="N",
    )
    max_queue_tokens: int = _setting(
        1_000_000, "Most tokens that wait; beyond it requests are refused with 429.", metavar="N"
    )
    slice_tokens: int | None = _setting(
        None,
        "Most tokens of a forward of bulk work while there is short work, which waits for one such slice at most; "
        "by default 8192 on a GPU and 1024 on a CPU. Submissions of up to a quarter of it are short.",
        metavar="N",
        least=4,
    )
    age_limit: float = _setting(
        2.0,
        "Seconds by which size, or each step of priority, moves work back in the queue; what comes later than that "
        "does not overtake.",
        metavar="S",
        least=0,
    )
    vector_cache_mib: int = _setting(
        0, "Memory for vectors of texts that come again, in MiB for all engines; 0 keeps none.", "MIB", least=0
    )
    threads: int | None = _setting(None, "CPU threads of all engines together; by default one a core.", metavar="N")
    watchdog_timeout: float = _setting(
        300.0,
        "Seconds without progress after which the engine counts as stuck: it is killed and started again, and who "
        "waits is answered 503.",
        metavar="S",
    )
    cuda_graphs: bool = _setting(True, "Replay small batches as CUDA graphs.")
    graph_seconds: float = _setting(
        60.0,
        "Seconds that capturing CUDA graphs may take at start; what is left out runs without.",
        metavar="S",
        least=0,
    )
    graph_mib: int = _setting(1024, "GPU memory that CUDA graphs may take, in MiB.", metavar="N", least=0)
    share_prefixes: bool = _setting(
        True, "Compute tokens that several texts of a batch begin with only once (causal models)."
    )
    plain_ops: tuple[str, ...] = _setting(
        (), "Use the plain torch twin of a kernel; repeatable; for comparisons.", metavar="KERNEL"
    )
    prune_last_layer: bool = _setting(
        True, "Compute only the rows that pooling reads in the last layer; turned off for comparisons."
    )
    batches_in_flight: int = _setting(
        2, "Batches on the device at once; 1 sends a batch when the last is answered, for comparisons.", "N", most=2
    )
    mem_fraction_static: float = _setting(
        0.85, "Share of a GPU's memory for weights and workspace; batches get what fits.", "F", least=0.01, most=1
    )
    tp: int = _setting(1, "Devices that share each model, each with a part of its weights.", metavar="N", most=64)
    tp_cuda_graphs: bool = _setting(True, "Replay small batches as CUDA graphs with --tp too, sums included.")
    dp: int = _setting(1, "Engines behind one port, on devices one after another.", metavar="N", most=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The server: where it listens and whom it answers."""

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all.", metavar="HOST")
    port: int = _setting(30000, "Port to listen on; 0 for any free one.", metavar="PORT", least=0, most=65535)
    http_workers: int = _setting(
        1, "Front-end processes, which check, tokenise and write answers beside the one engine.", metavar="N", most=256
    )
    api_key: tuple[str, ...] = _setting(
        (), "A key that clients must send as a bearer token, KEY or NAME:KEY; repeatable.", metavar="KEY"
    )
    api_key_file: str | None = _setting(
        None, "File with one KEY or NAME:KEY a line; read again on SIGHUP.", metavar="FILE"
    )
    cors_origin: tuple[str, ...] = _setting(
        (), "A web origin that browsers may call from; repeatable; none by default.", metavar="ORIGIN"
    )
    allowed_host: tuple[str, ...] = _setting(
        (),
        "A further name in Host headers that a server without keys on a loopback address answers to; repeatable; "
        "* for any.",
        metavar="NAME",
    )
    tls_cert: str | None = _setting(None, "Certificate chain (PEM); read again on SIGHUP.", metavar="FILE")
    tls_key: str | None = _setting(None, "Private key (PEM), not encrypted.", metavar="FILE")
    max_body_bytes: int = _setting(32 << 20, "Largest request body.", metavar="N")
    max_bodies_bytes: int = _setting(
        1 << 30, "Most bytes of all requests' bodies under way; beyond it they are refused with 429.", metavar="N"
    )
    max_answer_bytes: int = _setting(64 << 20, "Largest answer with a vector a token, counted in float32.", "N")
    max_answers_bytes: int = _setting(1 << 30, "Most bytes of all such answers under way; beyond it 429.", "N")
    max_header_bytes: int = _setting(32 << 10, "Largest request line and headers together.", metavar="N", least=256)
    max_connections: int | None = _setting(
        None, "Most connections at once; by default what the limit of open files leaves.", metavar="N"
    )
    header_timeout: float = _setting(20.0, "Seconds for a request's line and headers to arrive.", metavar="S")
    body_timeout: float = _setting(120.0, "Seconds for a request's body to arrive.", metavar="S")
    send_timeout: float = _setting(
        60.0, "Seconds in which a client must read 64 KiB of a waiting answer, or its rest.", metavar="S"
    )
    keep_alive_timeout: float = _setting(75.0, "Seconds that a connection may rest between requests.", metavar="S")
    drain_timeout: float = _setting(
        30.0, "Seconds for requests under way to be answered after SIGTERM or Ctrl-C.", metavar="S"
    )
    strict: bool = _setting(False, "Refuse unknown JSON fields, with the nearest known name.")
    enable_tqdm: bool = _setting(True, "Draw progress bars while loading.")
    otlp_endpoint: str | None = _setting(
        None,
        "Send traces to this OTLP/HTTP endpoint, such as http://127.0.0.1:4318/v1/traces; needs the extra otel.",
        metavar="URL",
    )
    log_json: bool = _setting(False, "Log as JSON lines.")
    request_log: Literal["none", "line", "body"] = _setting(
        "none", "Log a line a request; body adds the start of what was sent, texts of users included."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """An index: where documents become searchable, how they are stored, and how they are searched."""

    db: str | None = _setting(
        None, "Folder of a LanceDB index, or postgresql://..., qdrant+http://HOST:PORT, qdrant:FOLDER.", metavar="DB"
    )
    collection: str = _setting("documents", "Name of the index in its database.", metavar="NAME")
    coarse_dim: int = _setting(64, "Dimension that the first stage of a search scans.", metavar="D")
    coarse_dtype: Literal["auto", "float32", "float16", "int8", "binary"] = _setting(
        "auto", "How these vectors are stored; auto is int8 where the database can scan it, else float32."
    )
    index_dim: int | Literal["native"] = _setting(
        "native", "Dimension that the second stage compares; native is the model's width.", metavar="D"
    )
    index_dtype: Literal["auto", "float32", "float16", "int8"] = _setting(
        "auto", "How these vectors are stored; auto is int8 where the database can hold it, else float32."
    )
    chunk_tokens: int | None = _setting(
        None, "Most tokens of a chunk; by default 256, or what the model reads.", metavar="N", least=8
    )
    chunk_overlap: int = _setting(32, "Tokens that neighbouring chunks share.", metavar="N", least=0)
    candidates: int = _setting(2000, "Chunks that the first stage hands on.", metavar="N", most=10_000)
    rerank_candidates: int = _setting(50, "Chunks that the reranker judges.", metavar="N", most=1000)
    top_k: int = _setting(10, "Hits of a search.", metavar="N", most=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """What `anydim check` asks of vectors: least figures, from 0 to 1."""

    synonyms: float = _setting(0.85, "Least mean cosine of sentences that mean the same.", "X", least=0, most=1)
    translations: float = _setting(
        0.75, "Least mean cosine of Chinese sentences and their English translations.", "X", least=0, most=1
    )
    separation: float = _setting(
        0.95, "Least area under the ROC curve, right pairs against wrong ones.", "X", least=0, most=1
    )
    found: float = _setting(
        0.9, "Least share of sentences that find their translation first, both ways.", "X", least=0, most=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    others: tuple[ModelSettings, ...] = ()

    @property
    def models(self) -> tuple[ModelSettings, ...]:
        """The models to serve, the default first."""
        return (self.model, *self.others)


def all_settings() -> Iterator[Setting]:
    """Every setting, in the order of the help page."""
    for section, kind in get_type_hints(Settings).items():
        if not dataclasses.is_dataclass(kind):
            continue
        hints = get_type_hints(kind)
        for item in dataclasses.fields(kind):
            yield Setting(section=section, name=item.name, type=hints[item.name], default=item.default, **item.metadata)


def load_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None, more: Sequence[str] = ()
) -> Settings:
    """Merge flags, environment and TOML file over the defaults.

    Args:
        flags: setting name -> value, only those that were given.
        environ: the process's environment; only names that start with ANYDIM_ are read, and empty ones count as unset.
        file: a TOML file, or None.
        more: models beside the one in ``flags``.

    Raises:
        ConfigError: an unknown name (with the nearest known one), or a wrong type.
    """
    settings = list(all_settings())
    in_file, tables = from_file(file, settings) if file else ({}, [])
    sources: tuple[tuple[Mapping[str, Any], Callable[[Setting], str]], ...] = (
        (in_file, lambda setting: f"{setting.name} in {file}"),
        (from_environment(environ, settings), lambda setting: setting.variable),
        (flags, lambda setting: setting.flag),
    )
    known = [setting.name for setting in settings]
    for name in flags:
        if name not in known:
            raise ConfigError(f"unknown setting {name}{nearest(name, known)}")
    sections: dict[str, dict[str, Any]] = {setting.section: {} for setting in settings}
    for setting in settings:
        for values, spelled in sources:
            if setting.name in values:
                value = setting.convert(values[setting.name], spelled(setting))
                sections[setting.section][setting.name] = value
    first = ModelSettings(**sections["model"])
    return Settings(
        model=first,
        others=_others(first, more, tables),
        engine=EngineSettings(**sections["engine"]),
        server=ServerSettings(**sections["server"]),
        index=IndexSettings(**sections["index"]),
        check=CheckSettings(**sections["check"]),
    )


def changed(section: Any) -> dict[str, Any]:
    """The settings of one section that differ from their defaults, by name."""
    values = ((item.name, getattr(section, item.name), item.default) for item in dataclasses.fields(section))
    return {name: value for name, value, default in values if value != default}


def _others(
    first: ModelSettings, more: Sequence[str], tables: Sequence[Mapping[str, Any]]
) -> tuple[ModelSettings, ...]:
    """The models beside the first: those named on the command line, those of further tables, and the rerankers.

    They share the first one's settings but those that are each model's own.
    """
    names = [item.name for item in dataclasses.fields(first) if item.name not in (*_OWN, *_OWN_LIMITS)]
    shared = {name: getattr(first, name) for name in names}
    of_model = {setting.name: setting for setting in all_settings() if setting.section == "model"}
    own = [
        {name: of_model[name].convert(value, f"{name} in [[models]]") for name, value in table.items()}
        for table in tables
    ]
    models = [
        *({"model": name} for name in more),
        *own,
        *({"model": name, "task": "rerank"} for name in first.reranker),
    ]
    return tuple(ModelSettings(**{**shared, **model}) for model in models)
