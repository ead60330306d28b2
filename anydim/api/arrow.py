"""Outputs -> an Arrow stream of one batch: a column `embedding`, and `scale` for int8 and uint8.

pyarrow is an optional extra and is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from starlette.responses import Response

from anydim.api.vectors import Answer, Form, usage_headers
from anydim.errors import NotAcceptable

if TYPE_CHECKING:
    import pyarrow


def arrow_response(answer: Answer) -> Response:
    """The stream, with model, dtype and usage in the metadata of its schema and in headers.

    Raises:
        NotAcceptable: pyarrow is not installed.
    """
    try:
        import pyarrow.ipc  # noqa: F401
    except ImportError:
        raise NotAcceptable(f"{Form.ARROW} needs a package on the server: pip install 'anydim[arrow]'") from None
    return Response(_stream(answer), headers=usage_headers(answer), media_type=str(Form.ARROW))


def _stream(answer: Answer) -> bytes:
    import pyarrow as pa

    columns = {"embedding": _embeddings(answer)}
    if answer.dtype.has_scale:
        columns["scale"] = pa.array([output.scale for output in answer.outputs], pa.float32())
    schema = pa.schema(
        [pa.field(name, column.type, nullable=False) for name, column in columns.items()], metadata=_metadata(answer)
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _embeddings(answer: Answer) -> pyarrow.Array:
    """A list column: of fixed size where all vectors have one dimension."""
    import pyarrow as pa

    values = pa.array(np.concatenate([output.values for output in answer.outputs]))
    sizes = [output.values.size for output in answer.outputs]
    if len(set(sizes)) == 1:
        return pa.FixedSizeListArray.from_arrays(values, sizes[0])
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *sizes]), pa.int32()), values)


def _metadata(answer: Answer) -> dict[str, str]:
    tokens = str(answer.tokens)
    return {
        "model": answer.model,
        "dtype": str(answer.dtype),
        "dimensions": ",".join(map(str, sorted(answer.dims))),
        "prompt_tokens": tokens,
        "total_tokens": tokens,
    }
