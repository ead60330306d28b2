"""Rotation: the file behind `--projection`, which says of itself what it is and for which model it was fitted.

Safetensors with one orthogonal matrix `rotation`, by which a pooled state is multiplied from the right before it is
cut, and the model's identity in the file's own metadata. It knows files and cards; how a rotation is fitted is said
elsewhere.

Legend: D full width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anydim.errors import ModelError
from anydim.models.card import ModelCard
from anydim.models.identity import Identity, identity_of

_LOG = logging.getLogger(__name__)
_TENSOR: Final = "rotation"
_IDENTITY: Final = "model"
_FACTS: Final = "fit"
_DRIFT: Final = 1e-3  # from an orthogonal matrix, in any component of its square


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a file holds.

    Attributes:
        rotation_DD: float32 (D, D), orthogonal.
        identity: of the model that it was fitted for; None where the file does not say.
        facts: how it was fitted, for people.
    """

    rotation_DD: Tensor
    identity: Identity | None = None
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


def write_rotation(file: Path, rotation: Rotation) -> None:
    """Write a file that ``read_rotation`` reads; it is there whole or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    metadata = {_FACTS: msgspec.json.encode(dict(rotation.facts)).decode()}
    if rotation.identity is not None:
        metadata[_IDENTITY] = msgspec.json.encode(rotation.identity).decode()
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({_TENSOR: rotation.rotation_DD.float().contiguous()}, part, metadata)
        part.replace(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def read_rotation(file: Path) -> Rotation:
    """What a file holds, on the CPU.

    Raises:
        ModelError: the file is broken, or its matrix is not orthogonal.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            rotation_DD = opened.get_tensor(_TENSOR).float()
            metadata = opened.metadata() or {}
        identity = msgspec.json.decode(metadata[_IDENTITY], type=Identity) if _IDENTITY in metadata else None
        facts = msgspec.json.decode(metadata.get(_FACTS, "{}"), type=dict[str, object])
    except (OSError, SafetensorError, msgspec.DecodeError) as error:
        raise ModelError(f"{file} holds no readable rotation: {error}") from error
    if rotation_DD.ndim != 2 or rotation_DD.shape[0] != rotation_DD.shape[1]:
        raise ModelError(f"{file}: rotation has shape {tuple(rotation_DD.shape)}, which is no square")
    drift = (rotation_DD @ rotation_DD.T - torch.eye(len(rotation_DD))).abs().max().item()
    if not drift < _DRIFT:
        raise ModelError(f"{file}: rotation is not orthogonal (off by {drift:.2g}), so cosines would change")
    return Rotation(rotation_DD, identity, facts)


def load_rotation(file: str | None, card: ModelCard, device: torch.device, check_model: bool = True) -> Tensor | None:
    """The fitted rotation behind ``--projection``: float32 (D, D), or None.

    Args:
        file: its place, or None.
        card: the model that it is for.
        device: where it is needed.
        check_model: whether the model's weights are looked at; random ones are no model to compare.

    Raises:
        ModelError: the file is broken, of another width or model, or not orthogonal.
    """
    if file is None:
        return None
    found = read_rotation(Path(file))
    check_rotation(found, file, card, check_model)
    return found.rotation_DD.to(device)


def check_rotation(found: Rotation, file: str, card: ModelCard, check_model: bool = True) -> None:
    """Refuse a rotation that was not fitted for a model.

    Args:
        found: the rotation.
        file: where it came from, for people.
        card: the model.
        check_model: whether the model's weights are looked at.

    Raises:
        ModelError: it is of another width or model.
    """
    width = len(found.rotation_DD)
    if width != card.width:
        raise ModelError(f"{file}: rotation has shape ({width}, {width}), the model needs ({card.width}, {card.width})")
    if found.identity is None:
        _LOG.warning("%s does not say which model it was fitted for; it is taken for %s as it is", file, card.name)
    elif check_model and not found.identity.is_same(identity_of(card)):
        raise ModelError(
            f"{file} was fitted for {found.identity.model} and other weights than these of {card.name}; "
            "`anydim fit` makes one for this model"
        )
