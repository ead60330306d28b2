"""SGLang's server flags: a `sglang.launch_server` command line -> one that `anydim serve` reads.

Flags that mean the same are renamed, flags without a meaning here are dropped with a warning, unknown ones are refused
with the nearest known name. It knows names and how many values each takes; it knows no settings' types.

Source: SGLang's server arguments, releases 0.4 to 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from anydim.cli.options import serve_settings
from anydim.config import all_settings, nearest
from anydim.errors import ConfigError
from anydim.setting import Setting

RENAMED: Final = MappingProxyType(
    {
        "--model-path": "--model",
        "--tp-size": "--tp",
        "--tensor-parallel-size": "--tp",
        "--dp-size": "--dp",
        "--data-parallel-size": "--dp",
        "--context-length": "--max-input-tokens",
        "--max-prefill-tokens": "--max-batch-tokens",
        "--ssl-certfile": "--tls-cert",
        "--ssl-keyfile": "--tls-key",
        "--disable-cuda-graph": "--no-cuda-graphs",
    }
)
_VALUES: Final = MappingProxyType(
    {
        ("--dtype", "half"): "float16",
        ("--dtype", "float"): "float32",
        ("--load-format", "safetensors"): "auto",
        ("--quantization", "w8a8_int8"): "int8",
        ("--quantization", "w8a8_fp8"): "fp8",
    }
)
_FULFILLED: Final = frozenset({"--is-embedding"})
_REASONS: Final = MappingProxyType(
    {
        "--attention-backend": "the attention kernel is chosen by the device and the text's length",
        "--chunked-prefill-size": "a text runs in one piece; --max-batch-tokens bounds a batch",
        "--disable-radix-cache": "there is no cache across requests",
        "--download-dir": "downloads go to the hub's cache; set HF_HOME to move it",
        "--enable-metrics": "/metrics is always served",
        "--max-queued-requests": "the queue is bounded in tokens: --max-queue-tokens",
        "--schedule-policy": "short texts go first, with an age limit",
        "--skip-tokenizer-init": "token ids are accepted with --token-ids model",
        "--tokenizer-path": "the tokenizer is read from the model's folder",
        "--trust-remote-code": "no code from a model's folder is ever run",
    }
)

_SWITCHES: Final = """
    allow-auto-truncate constrained-json-disable-any-whitespace debug-cuda-graph delete-ckpt-after-loading
    disable-chunked-prefix-cache disable-cuda-graph-padding disable-custom-all-reduce disable-decode-cuda-graph
    disable-fast-image-processor disable-flashinfer-autotune disable-jump-forward disable-mla disable-nan-detection
    disable-outlines-disk-cache disable-overlap-schedule disable-prefill-cuda-graph disable-radix-cache
    disable-regex-jump-forward disable-shared-experts-fusion disable-tokenizer-batch-decode
    disaggregation-decode-enable-offload-kvcache enable-cache-report enable-cudagraph-gc enable-custom-logit-processor
    enable-deepep-moe enable-deterministic-inference enable-double-sparsity enable-dp-attention enable-dp-lm-head
    enable-dynamic-batch-tokenizer enable-ep-moe enable-eplb enable-flashinfer-allreduce-fusion enable-flashinfer-mla
    enable-flashmla enable-fp32-lm-head enable-hicache enable-hierarchical-cache enable-http2 enable-lmcache enable-lora
    enable-lora-overlap-loading enable-memory-saver enable-metrics enable-metrics-for-all-schedulers enable-mis
    enable-mixed-chunk enable-mscclpp enable-multimodal enable-nan-detection enable-nccl-nvls enable-p2p-check
    enable-pdmux enable-priority-scheduling enable-profile-cuda-graph enable-request-time-stats-logging
    enable-response-store enable-return-hidden-states enable-return-routed-experts enable-single-batch-overlap
    enable-ssl-refresh enable-streaming-session enable-symm-mem enable-tf32-matmul enable-tokenizer-batch-encode
    enable-torch-compile enable-torch-symm-mem enable-trace enable-two-batch-overlap enable-weights-cpu-backup
    encoder-only export-metrics-to-file flashinfer-mla-disable-ragged grpc-mode incremental-streaming-output
    keep-mm-feature-on-device language-only log-requests mm-enable-dp-encoder no-enable-tf32-matmul pre-warm-nccl
    prefill-only-disable-kv-cache show-time-cost skip-server-warmup skip-tokenizer-init sleep-on-idle stream-output
    triton-attention-reduce-in-fp32 trust-remote-code use-ray weight-loader-disable-mmap
    weight-loader-drop-cache-after-load weight-loader-prefetch-checkpoints
"""
_SINGLE: Final = """
    admin-api-key attention-backend attn-cp-size attn-dp-size base-gpu-id bf16-gemm-backend chat-template
    chunked-prefill-size completion-template constrained-json-whitespace-pattern cpu-offload-gb crash-dump-folder
    cuda-graph-backend-decode cuda-graph-backend-prefill cuda-graph-config cuda-graph-max-bs cuda-graph-max-bs-decode
    cuda-graph-max-bs-prefill debug-tensor-dump-input-file debug-tensor-dump-output-folder decode-attention-backend
    decode-log-interval deepep-config deepep-mode default-priority-value detokenizer-worker-num
    disaggregation-bootstrap-port disaggregation-decode-polling-interval disaggregation-ib-device disaggregation-mode
    disaggregation-transfer-backend dist-init-addr dist-timeout download-dir dynamic-batch-tokenizer-batch-size
    dynamic-batch-tokenizer-batch-timeout elastic-ep-backend ep ep-dispatch-algorithm ep-num-redundant-experts ep-size
    eplb-algorithm eplb-rebalance-num-iterations expert-distribution-recorder-mode expert-parallel-size
    export-metrics-to-file-dir fastapi-root-path file-storage-path fp4-gemm-backend fp8-gemm-backend
    gc-warning-threshold-secs gpu-id-step grammar-backend grpc-port hf-chat-template-name hicache-io-backend
    hicache-mem-layout hicache-ratio hicache-size hicache-storage-backend hicache-storage-prefetch-policy
    hicache-write-policy image-processor-backend init-expert-location json-model-override-args kv-cache-dtype
    kv-events-config limit-mm-data-per-request load-balance-method load-watch-interval log-level log-level-http
    log-requests-format log-requests-level lora-backend lora-eviction-policy mamba-backend mamba-full-memory-ratio
    mamba-ssm-dtype max-loaded-loras max-lora-chunk-size max-lora-rank max-loras-per-batch max-mamba-cache-size
    max-queued-requests max-running-requests max-total-tokens mm-attention-backend model-impl
    model-config-parser model-loader-extra-config modelopt-quant moe-a2a-backend moe-data-parallel-size
    moe-dense-tp-size moe-dp-size moe-runner-backend mooncake-ib-device nccl-init-addr nccl-port nnodes node-rank
    num-continuous-decode-steps num-reserved-decode-tokens offload-group-size offload-mode offload-num-in-group
    offload-prefetch-step otlp-service-name otlp-traces-endpoint page-size pipeline-parallel-size
    pp-async-batch-depth pp-max-micro-batch-size pp-size preferred-sampling-params prefill-attention-backend
    prefill-delayer-max-delay-passes prefill-max-requests prefill-only-one-req quantization-param-path
    radix-cache-backend radix-eviction-policy random-seed reasoning-parser remote-instance-weight-loader-backend
    rl-on-policy-target sampling-backend sampling-defaults schedule-conservativeness schedule-policy
    scheduler-recv-interval served-model-id soft-watchdog-timeout speculative-accept-threshold-acc
    speculative-accept-threshold-single speculative-algorithm speculative-attention-mode speculative-draft-model
    speculative-draft-model-path speculative-draft-model-quantization speculative-draft-model-revision
    speculative-eagle-topk speculative-num-draft-tokens speculative-num-steps speculative-token-map ssl-ca-certs
    ssl-keyfile-password stream-interval swa-full-tokens-ratio tbo-token-distribution-threshold
    tokenizer-backend tokenizer-metrics-custom-labels-header tokenizer-mode tokenizer-path tokenizer-worker-num
    tool-call-parser tool-server torch-compile-max-bs torchao-config trace-modules triton-attention-num-kv-splits
    triton-attention-split-tile-size warmups weight-loader-prefetch-num-threads weight-version
"""
_SEVERAL: Final = """
    allowed-media-domains bucket-e2e-request-latency bucket-inter-token-latency bucket-time-to-first-token
    cuda-graph-bs cuda-graph-bs-decode cuda-graph-bs-prefill custom-weight-loader debug-tensor-dump-layers encoder-urls
    forward-hooks gc-threshold generation-tokens-buckets log-requests-target lora-paths lora-target-modules
    model-checksum numa-node prompt-tokens-buckets tokenizer-metrics-allowed-custom-labels
    uvicorn-access-log-exclude-prefixes
"""


def _flags(names: str) -> frozenset[str]:
    return frozenset(f"--{name}" for name in names.split())


SWITCHES: Final = _flags(_SWITCHES)
SINGLE: Final = _flags(_SINGLE)
SEVERAL: Final = _flags(_SEVERAL)


@dataclass(frozen=True, slots=True)
class Translation:
    """A command line for `anydim serve`, and what to tell the user about the flags that were dropped."""

    args: tuple[str, ...]
    warnings: tuple[str, ...]


def translate(args: Sequence[str]) -> Translation:
    """Read a `sglang.launch_server` command line, without the program's name.

    Raises:
        ConfigError: a flag is known neither here nor to SGLang, or lacks its value.
    """
    kept: list[str] = []
    warnings: dict[str, None] = {}
    own = _own_flags()
    for flag, values in _groups(args, own):
        name = RENAMED.get(flag, flag)
        if _is_dropped(name, own):
            warnings[_warning(flag)] = None
        elif name not in _FULFILLED:
            kept += [name, *(_VALUES.get((name, value), value) for value in values)] if name else values
    return Translation(tuple(kept), tuple(warnings))


def _own_flags() -> Mapping[str, Setting | None]:
    """Every flag of `anydim serve`, with its setting; None for flags that stand for none."""
    flags: dict[str, Setting | None] = {"--help": None, "-h": None}
    for setting in all_settings():
        if setting.name not in serve_settings():
            continue
        flags[setting.flag] = setting
        if setting.is_switch:
            flags[f"--no-{setting.flag[2:]}"] = setting
    return flags


def _groups(args: Sequence[str], own: Mapping[str, Setting | None]) -> Iterator[tuple[str, list[str]]]:
    """Flags with their values, in order; a stray word comes with an empty flag."""
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            yield "", [word]
            continue
        flag, has_value, value = word.partition("=")
        count = _count(flag, own)
        if has_value:
            yield flag, [value]
        elif count is None:
            yield flag, _take_words(rest)
        elif len(rest) < count:
            raise ConfigError(f"{flag} needs a value")
        else:
            yield flag, [rest.pop(0) for _ in range(count)]


def _count(flag: str, own: Mapping[str, Setting | None]) -> int | None:
    """How many values follow a flag; None where it takes as many as there are."""
    name = RENAMED.get(flag, flag)
    if name in own:
        setting = own[name]
        return 0 if setting is None or setting.is_switch else 1
    if name in SEVERAL:
        return None
    if name in SINGLE or name == "--config":
        return 1
    if name in SWITCHES or name in _FULFILLED:
        return 0
    known = sorted({*own, *RENAMED, *SWITCHES, *SINGLE, *SEVERAL, *_FULFILLED, "--config"})
    raise ConfigError(f"unknown flag {flag}{nearest(flag, known)}")


def _take_words(rest: list[str]) -> list[str]:
    taken = []
    while rest and not rest[0].startswith("--"):
        taken.append(rest.pop(0))
    return taken


def _is_dropped(name: str, own: Mapping[str, Setting | None]) -> bool:
    return name not in own and name in SWITCHES | SINGLE | SEVERAL


def _warning(flag: str) -> str:
    reason = _REASONS.get(flag)
    return f"{flag} has no meaning here and is ignored" + (f": {reason}" if reason else "")
