"""Embedder: the library's front door. Texts in, numpy vectors out, with the engine in this process.

An entrance: it composes intake and engine, and refuses what the server refuses.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, InputType, Truncate, choice
from anydim.resident import CHUNK, Resident
from anydim.types import OutputDtype

_ARRAYS: Final = (np.ndarray, np.integer, tuple)

Vectors = NDArray[Any]


class Embedder(Resident[Intake]):
    """Embeds texts in this process.

    Use it as a context manager, or call ``close``. Safe for many threads: their texts share batches.
    """

    _work, _unit, _field = "Embedding", "texts", "input"

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
        super().__init__(settings if model is None else {"model": model, **settings}, Intake.of, show_progress)
        gc.collect()
        gc.freeze()  # a loaded model is never garbage: walking it would hold up a text that someone waits for

    def close(self) -> None:
        """Finish what is under way and free the model."""
        super().close()
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
            output_dtype=choice(OutputDtype, output_dtype, "output_dtype"),
            instruction=instruction,
            prompt_name=prompt_name,
            input_type=None if input_type is None else choice(InputType, input_type, "input_type"),
            truncate=choice(Truncate, truncate, "truncate"),
            normalize=normalize,
        )
        vectors = self._run(request, show_progress)
        return vectors[0] if single else vectors

    async def aembed(self, texts: str | Sequence[str], **options: Any) -> Any:
        """``embed`` without blocking the event loop; the same arguments, result and errors."""
        return await asyncio.to_thread(self.embed, texts, **options)

    def _run(self, request: EmbedRequest, show_progress: bool | None) -> Vectors | list[Vectors]:
        outputs = self._outputs(self.intake.chunks(request, CHUNK), len(request.inputs), show_progress)
        rows = [output.values for output in outputs]
        same = len({len(row) for row in rows}) == 1
        return np.stack(rows) if same else rows
