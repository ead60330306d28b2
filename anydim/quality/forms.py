"""Forms: the ways in which a vector can be kept, and full vectors brought into one of them.

A form is a dimension, an output type and whether a fitted rotation comes first. Its components are those that a server
with these settings answers, written and read again, so that what is lost in writing is lost here too. It knows the
heads; it knows no task and no model.

Legend: N rows, D full dimension, d dimension of a form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from anydim.errors import ConfigError
from anydim.heads.dimension import normalize, rotate
from anydim.heads.quantize import quantize
from anydim.types import OutputDtype

DTYPES: Final = (OutputDtype.FLOAT32, OutputDtype.FLOAT16, OutputDtype.INT8, OutputDtype.BINARY)
"""Those that differ in what they keep: uint8 and ubinary hold what int8 and binary hold."""

_TWINS: Final = {OutputDtype.UINT8: OutputDtype.INT8, OutputDtype.UBINARY: OutputDtype.BINARY}.items()


@dataclass(frozen=True, slots=True, order=True)
class Form:
    """One way to keep vectors.

    Attributes:
        dim: d, components of a vector.
        dtype: how they are written.
        fitted: whether a fitted rotation comes before the cut.
    """

    dim: int
    dtype: OutputDtype
    fitted: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of a vector. Scales of int8 are not counted: cosines do without them."""
        return self.dtype.stored(self.dim) * self.dtype.numpy.itemsize

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.dim} x {self.kind}"

    @property
    def kind(self) -> str:
        """The same without the dimension."""
        return f"{self.dtype.value}{', fitted' if self.fitted else ''}"


def all_forms(dims: Sequence[int], dtypes: Sequence[OutputDtype], fitted: Sequence[bool]) -> list[Form]:
    """Every combination, the smallest first; where sizes are equal the plainer first.

    A rotation changes no cosine of full float vectors, but a fitted form is measured there all the same.
    """
    found = [Form(dim, dtype, turned) for dim in dims for dtype in dtypes for turned in fitted]
    return sorted(found, key=lambda form: (form.bytes, form.fitted, -form.dim))


def families(forms: Iterable[Form]) -> list[list[Form]]:
    """Forms that differ in their dimension alone together, growing."""
    found: dict[tuple[OutputDtype, bool], list[Form]] = {}
    for form in sorted(forms, key=lambda form: form.dim):
        found.setdefault((form.dtype, form.fitted), []).append(form)
    return list(found.values())


def distinct(dtypes: Sequence[OutputDtype]) -> list[OutputDtype]:
    """Output types without those that keep the same as another one."""
    same = dict(_TWINS)
    return list(dict.fromkeys(same.get(dtype, dtype) for dtype in dtypes))


def allowed_dims(width: int, step: int) -> list[int]:
    """Every dimension that a server allows: multiples of ``step``, and the width itself."""
    return sorted({*range(step, width + 1, step), width})


def chosen_dims(asked: Sequence[int], width: int, step: int) -> list[int]:
    """The dimensions asked for, or all that are allowed.

    Raises:
        ConfigError: one is not allowed.
    """
    allowed = allowed_dims(width, step)
    for dim in asked:
        if dim not in allowed:
            raise ConfigError(f"--dims must be multiples of {step} between {step} and {width}, got {dim}")
    return sorted(set(asked)) or allowed


def ladder(width: int, step: int) -> list[int]:
    """A few dimensions, each about one and a half times the one before, below the width."""
    steps = [factor * 2**power * step for power in range(12) for factor in (1, 1.5)]
    return sorted({int(dim) for dim in steps if dim % step == 0 and dim < width})


def in_form(rows_ND: Tensor, form: Form) -> Tensor:
    """Full rows as a client reads them back, scaled to length one: float32 (N, d). The rotation came before."""
    wanted_N = torch.ones(len(rows_ND), dtype=torch.bool)
    kept_Nd, _ = normalize(rows_ND[:, : form.dim].float(), wanted_N)
    if form.dtype is OutputDtype.FLOAT32:
        return kept_Nd
    if form.dtype in (OutputDtype.BINARY, OutputDtype.UBINARY):
        bit = form.dim**-0.5
        return torch.where(kept_Nd > 0, bit, -bit)  # what the packed bits say
    values_Nd, _ = quantize(kept_Nd, form.dtype)
    read_Nd = values_Nd.float() - (128.0 if form.dtype is OutputDtype.UINT8 else 0.0)
    return normalize(read_Nd, wanted_N)[0]


class Rows:
    """Full rows, and the same rotated, which is done once."""

    def __init__(self, plain_ND: Tensor, rotation_DD: Tensor | None = None) -> None:
        """Take rows float32 (N, D); without a rotation there are no fitted forms."""
        self.plain_ND = plain_ND
        self._rotation_DD = rotation_DD
        self._turned_ND: Tensor | None = None

    def __len__(self) -> int:
        return len(self.plain_ND)

    def __getitem__(self, places_N: Tensor) -> Rows:
        return Rows(self.plain_ND[places_N], self._rotation_DD)

    def for_form(self, form: Form) -> Tensor:
        """The rows that a form is cut from, float32 (N, D)."""
        if not form.fitted or self._rotation_DD is None:
            return self.plain_ND
        if self._turned_ND is None:
            self._turned_ND = rotate(self.plain_ND, self._rotation_DD)
        return self._turned_ND


def blocks(count: int, size: int) -> Iterator[slice]:
    """So many rows in parts."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
