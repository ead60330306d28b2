"""The fields of Ollama's routes that embed, and of those that its clients ask first. Names, types, documentation.

Source: docs.ollama.com/api.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from anydim.api.dialects.extensions import Extensions, Truncation

_MODEL = Meta(description="A name of a served model, with or without `:latest`; absent picks the default.")
_UNUSED = Meta(description="Accepted and not used.")


class OllamaEmbedRequest(Extensions, kw_only=True):
    """Texts to embed."""

    input: Annotated[str | list[str], Meta(description="A text, or a list of texts.", examples=["a text"])]
    model: Annotated[str | None, _MODEL] = None
    truncate: Annotated[Truncation, Meta(description="Whether long texts are cut, or where: true by default.")] = None
    dimensions: Annotated[Any, Meta(description="Components of each vector: one number, or one an input.")] = None
    options: Annotated[dict[str, Any] | None, _UNUSED] = None
    keep_alive: Annotated[float | str | None, _UNUSED] = None


class OllamaEmbedResponse(msgspec.Struct, kw_only=True):
    """One vector a text; durations are in nanoseconds."""

    model: str
    embeddings: list[Any]
    total_duration: int
    load_duration: int = 0
    prompt_eval_count: int


class OllamaEmbeddingsRequest(Extensions, kw_only=True):
    """One text to embed, the older way."""

    prompt: Annotated[str, Meta(description="The text.", examples=["a text"])]
    model: Annotated[str | None, _MODEL] = None
    options: Annotated[dict[str, Any] | None, _UNUSED] = None
    keep_alive: Annotated[float | str | None, _UNUSED] = None


class OllamaEmbeddingsResponse(msgspec.Struct, kw_only=True):
    """Its vector."""

    embedding: list[Any]


class OllamaDetails(msgspec.Struct, kw_only=True):
    """What kind of model it is."""

    format: str = "safetensors"
    family: str
    families: list[str]
    parameter_size: str = ""
    quantization_level: str = ""


class OllamaModel(msgspec.Struct, kw_only=True):
    """A served model."""

    name: str
    model: str
    modified_at: str
    size: int = 0
    digest: str = ""
    details: OllamaDetails
    expires_at: str | UnsetType = UNSET
    size_vram: int | UnsetType = UNSET


class OllamaModels(msgspec.Struct, kw_only=True):
    """The served models."""

    models: list[OllamaModel]


class OllamaVersion(msgspec.Struct, kw_only=True):
    """The server's version."""

    version: str


class OllamaShowRequest(msgspec.Struct, kw_only=True):
    """A model to describe."""

    model: Annotated[str | None, _MODEL] = None
    name: Annotated[str | None, Meta(description="Means the same as `model`.")] = None
    verbose: Annotated[bool | None, _UNUSED] = None


class OllamaShowResponse(msgspec.Struct, kw_only=True):
    """What a model is."""

    modified_at: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
