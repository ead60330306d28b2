"""Outputs -> bytes: JSON numbers, base64, and the raw matrix. docs/output-types.md has each byte layout.

It knows values and headers; it knows no dialect's fields. Vectors are never turned into Python lists.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray
from starlette.responses import Response

from anydim.errors import ComputeFailed, NotAcceptable
from anydim.types import Item, Output, OutputDtype


class Form(enum.StrEnum):
    """What the Accept header asks for."""

    JSON = "application/json"
    RAW = "application/octet-stream"
    ARROW = "application/vnd.apache.arrow.stream"


_FORMS: Final = MappingProxyType({str(form): form for form in Form} | {"application/*": Form.JSON, "*/*": Form.JSON})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine made of one request.

    Attributes:
        model: the name that the answer carries.
        items: what was run, in the order of the request.
        outputs: one an Item, none with an error.
    """

    model: str
    items: Sequence[Item]
    outputs: Sequence[Output]

    @property
    def tokens(self) -> int:
        """Tokens of all inputs, after prompt and truncation."""
        return sum(len(item.ids) for item in self.items)

    @property
    def scores(self) -> list[float]:
        """The first score of each Output."""
        return [float(output.values[0]) for output in self.outputs]

    def order(self, top_n: int | None) -> list[int]:
        """The places of the ``top_n`` highest scores (of all, where None), the highest first; equal ones in order."""
        scores = self.scores
        return sorted(range(len(scores)), key=lambda place: -scores[place])[:top_n]

    @property
    def components(self) -> int:
        """Values of all vectors together."""
        return sum(output.values.size for output in self.outputs)

    @property
    def dtype(self) -> OutputDtype:
        """How the vectors are written; one request has one dtype."""
        return self.items[0].dtype

    @property
    def dims(self) -> set[int]:
        """The dimensions among the vectors."""
        return {item.dim for item in self.items}


def wanted_form(accept: str) -> Form:
    """The form with the highest quality in an Accept header; JSON where it names none that is known."""
    chosen, best = Form.JSON, 0.0
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        quality = _quality(parameters)
        if kind in _FORMS and quality > best:
            chosen, best = _FORMS[kind], quality
    return chosen


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def refuse_failed(outputs: Sequence[Output], field: str = "input") -> None:
    """Pass Outputs without errors; ``field`` is the name of the inputs in the request.

    Raises:
        ComputeFailed: one has an error; the message names its input.
    """
    for index, output in enumerate(outputs):
        if output.error is not None:
            raise ComputeFailed(f"{field}[{index}]: {output.error.message}")


def json_numbers(values: NDArray[np.generic]) -> msgspec.Raw:
    """The JSON array of a vector: each number reads back as the same value of its dtype."""
    return msgspec.Raw(orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY))


def json_base64(values: NDArray[np.generic]) -> msgspec.Raw:
    """The JSON string of a vector's little-endian bytes in base64."""
    return msgspec.Raw(b'"' + pybase64.b64encode(np.ascontiguousarray(values).data) + b'"')


def raw_response(answer: Answer) -> Response:
    """The little-endian matrix, row by row, with shape and dtype in headers.

    Raises:
        NotAcceptable: the vectors differ in dimension.
    """
    if len(answer.dims) > 1:
        found = ", ".join(map(str, sorted(answer.dims)))
        raise NotAcceptable(
            f"{Form.RAW} holds one dimension and this request has {found}; ask for JSON or {Form.ARROW}"
        )
    matrix = np.stack([output.values for output in answer.outputs])
    headers = {
        "X-Embedding-Shape": ",".join(map(str, matrix.shape)),
        "X-Embedding-Dtype": str(answer.dtype),
        "X-Embedding-Dimensions": str(answer.items[0].dim),
        **usage_headers(answer),
    }
    return Response(matrix.tobytes(), headers=headers, media_type=str(Form.RAW))


def usage_headers(answer: Answer) -> dict[str, str]:
    """Usage and model of answers whose body has no place for them."""
    tokens = str(answer.tokens)
    model = answer.model.encode("ascii", "replace").decode()
    return {"X-Usage-Prompt-Tokens": tokens, "X-Usage-Total-Tokens": tokens, "X-Model": model}
