"""anydim: text embeddings of any dimension from one copy of the weights, and reranking.

The public names are imported when they are first used, so that `import anydim` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from anydim.version import VERSION

if TYPE_CHECKING:
    from anydim.embedder import Embedder
    from anydim.errors import AnydimError
    from anydim.reranker import Ranked, Reranker
    from anydim.types import OutputDtype

__version__ = VERSION

__all__ = ["AnydimError", "Embedder", "OutputDtype", "Ranked", "Reranker"]

_HOMES: Final = MappingProxyType(
    {
        "AnydimError": "anydim.errors",
        "Embedder": "anydim.embedder",
        "OutputDtype": "anydim.types",
        "Ranked": "anydim.reranker",
        "Reranker": "anydim.reranker",
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anydim' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
