"""Subject: what is checked, a model in this process or a server at a URL, asked for vectors in the same words.

It knows an Embedder and OpenAI's route; it knows no check.

Legend: N texts, d components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

from anydim.embedder import Embedder
from anydim.errors import ConfigError, InvalidRequest, Unavailable
from anydim.quality.extra import need
from anydim.types import Float32Array

_PART: Final = 64  # texts of a request
_PARAMETER: Final = (400, 404, 422)  # statuses by which a server refuses what it is asked


class Subject(Protocol):
    """Something that makes vectors of texts."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def prompts(self) -> Sequence[str]:
        """Names of its prompts, as far as it tells."""
        ...

    @property
    def takes_input_type(self) -> bool:
        """Whether it knows queries from documents."""
        ...

    def embed(self, texts: Sequence[str], dim: int | None = None, input_type: str | None = None) -> Float32Array:
        """Vectors float32 (N, d); without ``dim`` of its default dimension.

        Raises:
            InvalidRequest: it refuses.
        """
        ...


class LocalSubject:
    """A model in this process."""

    takes_input_type = True

    def __init__(self, embedder: Embedder) -> None:
        """Check this one; it stays its owner's."""
        self._embedder = embedder
        self.name = embedder.card.name
        self.prompts = sorted(embedder.card.prompts)

    def embed(self, texts: Sequence[str], dim: int | None = None, input_type: str | None = None) -> Float32Array:
        """See Subject."""
        vectors: Float32Array = self._embedder.embed(
            list(texts), output_dim=dim, input_type=input_type, truncate="end", show_progress=False
        )
        return vectors


class ServedSubject:
    """A server that speaks OpenAI's dialect; one of ours tells more of itself."""

    def __init__(self, url: str, model: str | None, key: str | None, timeout: float = 120.0) -> None:
        """Ask the server what it is.

        Raises:
            ConfigError: the URL is none.
            Unavailable: nothing answers there, or it refuses the key.
        """
        httpx = need("httpx")
        self._errors = httpx.HTTPError
        base = url.rstrip("/").removesuffix("/v1")
        if not base.startswith(("http://", "https://")):
            raise ConfigError(f"--url must start with http:// or https://, got {url!r}")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=base, headers=headers, timeout=timeout)
        info = self._info()
        self.takes_input_type = "prompts" in info
        self.prompts: Sequence[str] = sorted(info.get("prompts") or ())
        self._model = model or info.get("model_id") or self._first_model()
        self.name = f"{self._model} at {base}"

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def embed(self, texts: Sequence[str], dim: int | None = None, input_type: str | None = None) -> Float32Array:
        """See Subject."""
        named: dict[str, Any] = {"model": self._model}
        if dim is not None:
            named["dimensions"] = dim
        if input_type is not None:
            named["input_type"] = input_type
        rows: list[list[float]] = []
        for start in range(0, len(texts), _PART):
            answer = self._ask("POST", "/v1/embeddings", {"input": list(texts[start : start + _PART]), **named})
            rows += [row["embedding"] for row in sorted(answer["data"], key=lambda row: int(row["index"]))]
        return np.asarray(rows, np.float32)

    def _info(self) -> dict[str, Any]:
        try:
            found = self._ask("GET", "/info", None)
        except InvalidRequest:
            return {}
        return found if isinstance(found, dict) else {}

    def _first_model(self) -> str:
        try:
            return str(self._ask("GET", "/v1/models", None)["data"][0]["id"])
        except (InvalidRequest, KeyError, IndexError, TypeError):
            raise ConfigError("the server names no model: say which with --model") from None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except self._errors as error:
            raise Unavailable(f"{self._client.base_url} does not answer: {error}") from error
        if answer.status_code in _PARAMETER:
            raise InvalidRequest(f"{path} answers {answer.status_code}: {answer.text[:300]}")
        if answer.status_code != 200:
            hint = "; is --api-key right?" if answer.status_code in (401, 403) else ""
            raise Unavailable(f"{path} answers {answer.status_code}{hint}: {answer.text[:300]}")
        try:
            return answer.json()
        except ValueError:
            raise InvalidRequest(f"{path} answers no JSON") from None
