"""Layout: what an index holds and how it was made, kept in the index itself so that nothing else can be mixed in.

It knows dimensions, number types and the kinds of metadata fields; it knows no database.

Legend: N vectors, D full dimension, d coarse dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from anydim.errors import ConfigError, InvalidRequest
from anydim.models.card import ModelCard
from anydim.types import Float32Array

Kind = Literal["text", "number", "boolean"]
Written = NDArray[Any]

FORMAT: Final = 1
PROBE: Final = "Which of these books tells the history of a harbour?"
_MOST_FIELDS: Final = 256
_LEAST_PEAK: Final = 1e-30
_ALIKE: Final = 0.95  # below it lie other models; other precisions of the same stay above


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How an index was made.

    Attributes:
        model: the model of its vectors.
        dim: D, components of the full vectors.
        dtype: how the full vectors are stored: float32, float16 or int8.
        coarse_dim: d, components of the vectors that the first stage scans.
        coarse_dtype: float32, float16, int8 or binary.
        chunk_tokens: most tokens of a chunk.
        chunk_overlap: tokens that neighbours share.
        probe: the first d components of a known text's vector, by which a model that changed is noticed.
        fields: metadata fields that can be filtered on, in the order in which they were met.
        format: of the index itself.
    """

    model: str
    dim: int
    dtype: Literal["float32", "float16", "int8"]
    coarse_dim: int
    coarse_dtype: Literal["float32", "float16", "int8", "binary"]
    chunk_tokens: int
    chunk_overlap: int
    probe: list[float]
    fields: dict[str, Kind] = msgspec.field(default_factory=dict)
    format: int = FORMAT

    @property
    def coarse_bytes(self) -> int:
        """Bytes of one coarse vector."""
        return {"float32": 32, "float16": 16, "int8": 8, "binary": 1}[self.coarse_dtype] * self.coarse_dim // 8

    @property
    def full_bytes(self) -> int:
        """Bytes of one full vector."""
        return {"float32": 4, "float16": 2, "int8": 1}[self.dtype] * self.dim

    def coarse(self, vectors_ND: Float32Array) -> Written:
        """Full unit vectors as the first stage stores them: (N, d), for binary uint8 (N, d / 8)."""
        return written(cut(vectors_ND, self.coarse_dim), self.coarse_dtype)

    def full(self, vectors_ND: Float32Array) -> Written:
        """Full unit vectors as the second stage stores them: (N, D)."""
        return written(vectors_ND, self.dtype)

    def with_fields(self, metadata: Mapping[str, Any]) -> Layout:
        """This layout and what of one document's metadata can be filtered on.

        Raises:
            InvalidRequest: a field holds another kind of value than before, or there are too many fields.
        """
        new = dict(self.fields)
        for name, value in metadata.items():
            kind = kind_of(value)
            if kind is not None and new.setdefault(name, kind) != kind:
                raise InvalidRequest(f"{name} is {words_of(kind)}, but {words_of(new[name])} in this index", name)
        if len(new) > _MOST_FIELDS:
            raise InvalidRequest(
                f"the index has more than {_MOST_FIELDS} metadata fields: nest what is not filtered on"
            )
        return self if len(new) == len(self.fields) else msgspec.structs.replace(self, fields=new)


def read_layout(body: bytes) -> Layout:
    """The layout that an index holds.

    Raises:
        ConfigError: another version of anydim wrote it, or it is damaged.
    """
    try:
        layout = msgspec.json.decode(body, type=Layout)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the index does not say how it was made ({error})") from None
    if layout.format != FORMAT:
        raise ConfigError(f"the index has format {layout.format}, this version reads {FORMAT}: make it anew")
    return layout


def check_model(layout: Layout, card: ModelCard) -> None:
    """Refuse a model that an index was not made with, by its name and width.

    Raises:
        ConfigError: it is another model.
    """
    if layout.model != card.name:
        raise ConfigError(
            f"the index was made with {layout.model}, not with {card.name}; vectors of two models do not mix"
        )
    if layout.dim > card.width:
        raise ConfigError(f"the index has {layout.dim} components, {card.name} has {card.width}")


def check_probe(layout: Layout, vector_D: Float32Array) -> None:
    """Refuse a model that gives ``PROBE`` another vector than when the index was made.

    Raises:
        ConfigError: it does.
    """
    cosine = float(np.dot(probe_of(vector_D, layout.coarse_dim), layout.probe))
    if cosine < _ALIKE:
        raise ConfigError(
            f"{layout.model} gives other vectors than when the index was made (cosine {cosine:.3f}): are its files, "
            "--projection and prompts the same?"
        )


def probe_of(vector_D: Float32Array, dim: int) -> list[float]:
    """What the layout keeps of the vector of ``PROBE``."""
    return [round(value, 6) for value in cut(vector_D[None], dim)[0].tolist()]


def kind_of(value: Any) -> Kind | None:
    """What kind of filter a value allows; None for lists, objects and null."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else None


def words_of(kind: Kind) -> str:
    """A kind with its article."""
    return "true or false" if kind == "boolean" else f"a {kind}" if kind == "number" else kind


def cut(vectors_ND: Float32Array, dim: int) -> Float32Array:
    """The first ``dim`` components, scaled to length one again: float32 (N, dim)."""
    part_Nd = vectors_ND[:, :dim].astype(np.float32)
    lengths_N1 = np.linalg.norm(part_Nd, axis=1, keepdims=True)
    cut_Nd: Float32Array = (part_Nd / np.maximum(lengths_N1, _LEAST_PEAK)).astype(np.float32)
    return cut_Nd


def written(vectors_Nd: Float32Array, dtype: str) -> Written:
    """Rows in one of our output types, as heads/quantize.py defines them, here for processes without torch."""
    if dtype == "binary":
        return np.packbits(vectors_Nd > 0, axis=1)
    if dtype == "int8":
        peaks_N1 = np.maximum(np.abs(vectors_Nd).max(axis=1, keepdims=True), _LEAST_PEAK)
        levels_Nd: Written = np.round(vectors_Nd * (np.float32(127) / peaks_N1)).astype(np.int8)
        return levels_Nd
    return vectors_Nd.astype(dtype)
