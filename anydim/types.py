"""The objects that cross floors: Item -> Batch -> Output.

They hold numbers only. They know nothing of text, HTTP, devices or models, and import no torch.

Shapes: T tokens in the batch, B texts in the batch, P shared prefixes, d the dimension that one text asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anydim.errors import AnydimError

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]


class OutputDtype(enum.StrEnum):
    """How the components of a vector are written; see docs/output-types.md for each byte layout."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    UINT8 = "uint8"
    BINARY = "binary"
    UBINARY = "ubinary"

    @property
    def code(self) -> int:
        """Position in the declaration: the number that stands for it between processes."""
        return _ORDER.index(self)

    @classmethod
    def from_code(cls, code: int) -> OutputDtype:
        """The inverse of ``code``."""
        return _ORDER[code]

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The little-endian numpy dtype of one stored value (for the binary kinds: of eight packed components)."""
        return np.dtype(_NUMPY[self.code])

    @property
    def has_scale(self) -> bool:
        """Whether a scale comes back beside the values."""
        return self in (OutputDtype.INT8, OutputDtype.UINT8)

    def stored(self, dim: int) -> int:
        """How many values a vector of ``dim`` components takes: ``dim``, or bytes of eight packed bits."""
        return -(-dim // 8) if self in (OutputDtype.BINARY, OutputDtype.UBINARY) else dim


_ORDER: Final = tuple(OutputDtype)
_NUMPY: Final = ("<f4", "<f2", "i1", "u1", "i1", "u1")


class Pooling(enum.StrEnum):
    """How token states become one vector; names as in sentence-transformers."""

    LAST = "lasttoken"
    CLS = "cls"
    MEAN = "mean"
    MAX = "max"


class Priority(enum.StrEnum):
    """How urgent work is, for the engine's queue."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms the Items of one request wait; filled by the entrance that took the request.

    Attributes:
        priority: how urgent they are.
        deadline: the time.monotonic() in seconds after which nobody waits for them, or None.
        key: the name of the key that they came with; empty where keys are not in use.
    """

    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    key: str = ""


ANY_TIME: Final = Terms()
"""The terms of those who name none."""


@dataclass(frozen=True, slots=True)
class Item:
    """One text on its way to the engine.

    Attributes:
        ids: int32 (length,), token ids with the special ones; filled by intake.
        dim: components asked for, checked against the model's card, or a scorer's labels; filled by intake.
        dtype: how the vector is written; filled by intake.
        normalize: whether the vector has length one, or the scores are put between 0 and 1; filled by intake.
        terms: on which terms it waits; filled by intake from the request, which the Items of a request share.
        model: the place of its model among the served ones; filled by intake.
        each_token: whether every token's state becomes a vector, in float32, instead of one vector for the text; filled
            by intake.
        group: Items of different groups share neither a batch nor a forward; filled by who needs the batches of some
            texts to depend on these texts alone, who gives no number twice. A submission is of one group.
    """

    ids: Int32Array
    dim: int
    dtype: OutputDtype = OutputDtype.FLOAT32
    normalize: bool = True
    terms: Terms = ANY_TIME
    model: int = 0
    each_token: bool = False
    group: int = 0


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Tokens that several texts of a batch begin with, computed once; filled by engine/prefixes.py.

    Attributes:
        lengths_P: int32, tokens of each of the P prefixes.
        prefix_B: int32, the prefix that each text continues, or -1.
    """

    lengths_P: Int32Array
    prefix_B: Int32Array


@dataclass(frozen=True, slots=True)
class Batch:
    """Items packed without padding, shortest first; filled by engine/packing.py.

    Attributes:
        items: the B items in packed order; either all of them want a vector a token or none does.
        order_B: int32, where each of them stood before packing.
        ids_T: int32, all token ids one after another.
        positions_T: int32, each token's position in its own text.
        cu_seqlens_C: int32 (C = B + 1), where each text starts, and the end of the last.
        dims_B: int32, the dimension that each text asked for.
        prefixes: where texts share prefixes. Then ``cu_seqlens_C`` bounds what each text has of its own, and the
            prefixes' tokens follow behind the last text.
    """

    items: Sequence[Item]
    order_B: Int32Array
    ids_T: Int32Array
    positions_T: Int32Array
    cu_seqlens_C: Int32Array
    dims_B: Int32Array
    prefixes: Prefixes | None = None

    @property
    def tokens(self) -> int:
        """How many tokens the forward runs."""
        return len(self.ids_T)

    @property
    def each_token(self) -> bool:
        """Whether its Items want a vector a token."""
        return self.items[0].each_token


@dataclass(frozen=True, slots=True)
class Output:
    """What the engine answers to one Item: either values or an error.

    Attributes:
        values: (dtype.stored(dim),) of dtype.numpy; (tokens, dim) of an Item that wants a vector a token; filled by
            heads.
        scale: multiply int8 values (uint8 less 128) by it to get the components back; None for other dtypes.
        error: why this item alone has no values.
    """

    values: NDArray[np.generic]
    scale: float | None = None
    error: AnydimError | None = None
