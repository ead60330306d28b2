"""From a card to a model on a device: which device, which precision, which forward, which weights.

It knows families and devices; it knows nothing of requests or heads.

Legend: I channels in, O channels out.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from anydim.config import ModelSettings
from anydim.errors import ConfigError
from anydim.kernels import OP_NAMES, Ops, plain_ops, select_ops
from anydim.models import weights
from anydim.models.bert import Bert
from anydim.models.card import Family, ModelCard
from anydim.models.feed import check_quantization, quantizing
from anydim.models.packed import Model
from anydim.models.qwen3 import Qwen3
from anydim.models.shards import Shard, Slices, join_products, joined_ops

_LOG = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device behind ``--device``; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: no such device, or it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps, got {name!r}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(f"--device {name}: this machine shows {count} CUDA devices")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: this machine has no MPS device")
    if device.type not in ("cpu", "mps"):
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps, got {name!r}")
    return device


def resolve_dtype(name: str, device: torch.device, family: Family, force_float16: bool = False) -> torch.dtype:
    """The precision behind ``--dtype``; ``auto`` is bfloat16 where the device computes in it, else float32.

    Raises:
        ConfigError: float16 for Qwen3, which overflows on some texts, without the force flag.
    """
    if name == "auto":
        return torch.bfloat16 if _is_good_at_bfloat16(device) else torch.float32
    if name == "float16" and family is Family.QWEN3 and not force_float16:
        raise ConfigError(
            "--dtype float16 overflows in Qwen3 and gives NaN on some texts; use bfloat16, or add --force-float16"
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype


@torch.inference_mode(False)  # weights are filled by threads, which would not know a caller's inference mode
def build_model(
    card: ModelCard,
    settings: ModelSettings,
    device: torch.device,
    dtype: torch.dtype,
    plain_ops: tuple[str, ...],
    progress: weights.Progress,
    shard: Shard | None = None,
) -> Model:
    """Allocate a model on the device and fill it from the card's folder, or with random weights.

    With ``shard`` it holds one rank's slices and runs in step with the other ranks; the card is then that of
    ``shard_card``.

    Raises:
        ModelError: the folder's files are incomplete or not supported.
        ConfigError: an unknown name among ``plain_ops``, or products in 8 bits that the device does not have.
    """
    unknown = sorted(set(plain_ops) - OP_NAMES)
    if unknown:
        raise ConfigError(f"--plain-ops {', '.join(unknown)}: known are {', '.join(sorted(OP_NAMES))}")
    check_quantization(settings.quantization, device, dtype)
    if settings.quantization != "none" and device.type == "cpu":
        _LOG.warning("8-bit products are for comparisons on a CPU: they are several times slower than bfloat16 there")
    ops = select_ops(device, dtype, frozenset(plain_ops) | _without_kernel(card))
    if shard is not None:
        ops = joined_ops(ops, shard)
    finish: weights.Finish | None = None
    if settings.quantization == "none":
        model = _allocate(card, ops, device, dtype)
    else:
        model = _allocate(card, ops, device, dtype, products=torch.device("meta"))
        finish = quantizing(model, settings.quantization, ops, dtype)
    source = model if shard is None else Slices(model, card.family, shard)
    if settings.load_format == "dummy":
        weights.fill_random(source, finish=finish)
    else:
        weights.load(source, card.folder, progress, finish)
    if shard is not None:
        join_products(model, card.family, shard)
    return model


def weight_bytes(card: ModelCard, dtype: torch.dtype, quantization: str = "none") -> int:
    """Most bytes of a model's parameters, while it is loaded and after, without allocating any of them.

    Raises:
        ModelError: the config asks for something that no forward does.
    """
    model = _allocate(card, plain_ops(), torch.device("meta"), dtype)
    whole = sum(parameter.nbytes for parameter in model.parameters())
    if quantization == "none":
        return whole
    products: list[Tensor] = [getattr(module, name) for module, name in model.product_weights()]
    layers = int(card.config["num_hidden_layers"])
    saved = sum(weight_OI.nbytes - weight_OI.numel() - 4 * len(weight_OI) for weight_OI in products)
    return whole - saved + sum(weight_OI.nbytes for weight_OI in products) // layers  # one layer is there twice


def _allocate(
    card: ModelCard, ops: Ops, device: torch.device, dtype: torch.dtype, products: torch.device | None = None
) -> Qwen3 | Bert:
    if card.family is Family.QWEN3:
        return Qwen3(card.config, ops, device, dtype, products)
    separator = card.scorer.separator if card.scorer is not None else None
    return Bert(card.config, card.family, ops, device, dtype, products, separator)


def _is_good_at_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _without_kernel(card: ModelCard) -> frozenset[str]:
    """Operations that the Triton kernels cannot do for this model: heads are powers of two wide, rows aligned."""
    heads = int(card.config["num_attention_heads"])
    head_dim = int(card.config.get("head_dim") or card.width // heads)
    without = set()
    if head_dim < 16 or head_dim & (head_dim - 1):
        without |= {"attend", "attend_rows", "attend_long", "qk_norm_rope_", "fused"}
    if any(
        size % 16 for size in (int(card.config["hidden_size"]), int(card.config["intermediate_size"]), heads * head_dim)
    ):
        without.add("fused")  # rows of weights must start on 16 bytes
    return frozenset(without)
