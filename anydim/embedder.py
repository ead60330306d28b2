"""Embedder: the library's front door. Texts in, numpy vectors out, with the engine in this process.

An entrance: it composes registry, intake and engine, and refuses what the server refuses.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from anydim.config import load_settings
from anydim.engine.feed import feed
from anydim.engine.load import load_engine
from anydim.errors import ComputeFailed, InvalidRequest
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.models.registry import find_model
from anydim.progress import progress_bar
from anydim.types import Item, Output, OutputDtype

_ARRAYS: Final = (np.ndarray, np.integer, tuple)
_CHUNK: Final = 256  # texts tokenised at a time, so that the engine starts while the rest are being read
_BAR_FROM: Final = 1000  # texts from which a progress bar is worth drawing

Vectors = NDArray[Any]
Kind = TypeVar("Kind", OutputDtype, InputType, Truncate)


class Embedder:
    """Embeds texts in this process.

    Use it as a context manager, or call ``close``. Safe for many threads: their texts share batches.
    """

    def __init__(self, model: str | None = None, *, show_progress: bool = True, **settings: Any) -> None:
        """Load a model.

        Args:
            model: hub id or local folder; the starter model by default.
            show_progress: draw progress bars on a terminal, for loading and for long lists.
            settings: any model or engine setting by name, such as ``dtype``, ``device``, ``projection``,
                ``default_dim`` or ``max_batch_tokens``; see docs/config.md.

        Raises:
            ConfigError: an unknown setting, or one that does not fit.
            ModelError: the model is not there, broken, or not supported.
        """
        flags = settings if model is None else {"model": model, **settings}
        loaded = load_settings(flags, {})
        self.settings = loaded.model
        self._show_progress = show_progress
        engine = loaded.engine
        if "max_queue_tokens" not in settings:  # callers wait for their own texts
            engine = replace(engine, max_queue_tokens=sys.maxsize)
        with progress_bar("Preparing the model", show_progress) as progress:
            self.card = find_model(loaded.model, progress)
        self.intake = Intake.of(self.card, loaded.model)
        self._engine, self.started = load_engine(self.card, loaded.model, engine, show_progress)
        gc.collect()
        gc.freeze()  # a loaded model is never garbage: walking it would hold up a text that someone waits for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what is under way and free the model."""
        self._engine.close()
        gc.unfreeze()

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        output_dim: int | Sequence[int] | None = None,
        output_dtype: OutputDtype | str = OutputDtype.FLOAT32,
        instruction: str | None = None,
        prompt_name: str | None = None,
        input_type: InputType | str | None = None,
        truncate: Truncate | str = Truncate.NONE,
        normalize: bool = True,
        show_progress: bool | None = None,
    ) -> Any:
        """Embed texts.

        Args:
            texts: one text or many.
            output_dim: components of each vector, one number or one a text; the default dimension otherwise.
            output_dtype: float32, float16, int8, uint8, binary or ubinary.
            instruction: free text for models that were trained with instructions.
            prompt_name: a key of the model's prompts.
            input_type: query or document.
            truncate: what happens to texts that are too long: ``end`` and ``start`` cut there, ``none`` refuses.
            normalize: whether vectors have length one.
            show_progress: draw a bar; by default from 1000 texts on.

        Returns:
            numpy (n, d) of the asked dtype, (d,) for one text, or a list of n arrays where dimensions are mixed. The
            binary types have ceil(d / 8) bytes in place of d.

        Raises:
            InvalidRequest: as the server refuses it; ``param`` names the field.
            ComputeFailed: the model gave no finite vector for a text.
        """
        single = isinstance(texts, str)
        request = EmbedRequest(
            inputs=[texts] if isinstance(texts, str) else list(texts),
            output_dim=np.asarray(output_dim).tolist() if isinstance(output_dim, _ARRAYS) else output_dim,
            output_dtype=_choice(OutputDtype, output_dtype, "output_dtype"),
            instruction=instruction,
            prompt_name=prompt_name,
            input_type=None if input_type is None else _choice(InputType, input_type, "input_type"),
            truncate=_choice(Truncate, truncate, "truncate"),
            normalize=normalize,
        )
        vectors = self._run(request, show_progress)
        return vectors[0] if single else vectors

    async def aembed(self, texts: str | Sequence[str], **options: Any) -> Any:
        """``embed`` without blocking the event loop; the same arguments, result and errors."""
        return await asyncio.to_thread(self.embed, texts, **options)

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """Items that this embedder's ``intake`` made; the future gets one Output an Item, an error in place of a vector
        where one text failed. Cancelling it takes back what waits.
        """
        return self._engine.submit(items)

    def _run(self, request: EmbedRequest, show_progress: bool | None) -> Vectors | list[Vectors]:
        """Tokenise chunk by chunk while the engine works on the chunks before."""
        count = len(request.inputs)
        with self._bar(count, show_progress) as progress:
            chunks = self.intake.chunks(request, _CHUNK)
            return _stack(feed(self._engine, chunks, lambda done: progress("texts", done, count)))

    def _bar(self, count: int, wanted: bool | None) -> AbstractContextManager[Callable[[str, int, int], None]]:
        show = self._show_progress and count >= _BAR_FROM if wanted is None else wanted
        return progress_bar("Embedding", show, unit="texts")


def _choice(kind: type[Kind], value: Kind | str, param: str) -> Kind:
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(f"{param} must be one of {', '.join(kind)}, got {value!r}", param) from None


def _stack(outputs: Sequence[Output]) -> Vectors | list[Vectors]:
    for index, output in enumerate(outputs):
        if output.error is not None:
            raise ComputeFailed(f"input[{index}]: {output.error.message}")
    rows = [output.values for output in outputs]
    same = len({len(row) for row in rows}) == 1
    return np.stack(rows) if same else rows
