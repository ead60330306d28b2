"""A model folder run in this process: intake, packing, runner and heads, without server and queue.

Legend: T tokens.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from anydim.config import ModelSettings
from anydim.engine.load import make_task
from anydim.engine.packing import pack
from anydim.engine.runner import Runner
from anydim.intake.request import EmbedRequest, ScoreRequest, Truncate
from anydim.models.build import build_model
from anydim.models.card import read_card
from anydim.types import Item, Output

if TYPE_CHECKING:
    from anydim.intake.intake import Intake
    from anydim.intake.scoring import ScoreIntake

CPU: Final = torch.device("cpu")


class Pipeline:
    """One loaded model."""

    def __init__(
        self,
        folder: Path,
        device: torch.device = CPU,
        dtype: torch.dtype = torch.float32,
        plain_ops: tuple[str, ...] = (),
        share_prefixes: bool = True,
        **settings: Any,
    ) -> None:
        self.settings = ModelSettings(model=str(folder), **settings)
        self.card = read_card(folder)
        self.model = build_model(self.card, self.settings, device, dtype, plain_ops, lambda *_: None)
        self.runner = Runner(self.model, make_task(self.card, self.settings, device), device, dtype, share_prefixes)

    @cached_property
    def intake(self) -> "Intake":
        """The model's intake; loaded when texts come, so that token ids need no tokenizer."""
        from anydim.intake.intake import Intake

        return Intake.of(self.card, self.settings)

    def items(self, texts: Sequence[str], **fields: Any) -> list[Item]:
        """Items of texts; long ones are cut at their end unless ``truncate`` says otherwise."""
        return self.intake.prepare(EmbedRequest(inputs=list(texts), **({"truncate": Truncate.END} | fields)))

    @cached_property
    def score_intake(self) -> "ScoreIntake":
        """The intake of a model that scores."""
        from anydim.intake.scoring import ScoreIntake

        return ScoreIntake.of(self.card, self.settings)

    def scores(self, query: str, documents: Sequence[str], raw: bool = True, **fields: Any) -> NDArray[np.float32]:
        """Scores of one batch: float32 (documents, labels)."""
        request = ScoreRequest(queries=[query], documents=documents, squash=not raw, **fields)
        return self.stack(self.run(self.score_intake.prepare(request)))

    def run(self, items: Sequence[Item]) -> list[Output]:
        """Outputs of one batch, in the order of the items."""
        batch = pack(items)
        outputs = self.runner.finish(self.runner.start(batch))
        return [outputs[place] for place in np.argsort(batch.order_B)]

    def embed(self, texts: Sequence[str], **fields: Any) -> NDArray[np.float32]:
        """Vectors of texts in one batch, full width unless ``output_dim`` says otherwise: float32 (texts, d)."""
        return self.stack(self.run(self.items(texts, **({"output_dim": self.card.width} | fields))))

    def vectors(self, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Full unit vectors of token ids in one batch: float32 (texts, D)."""
        return self.stack(self.run([Item(ids_T, self.card.width) for ids_T in ids]))

    @staticmethod
    def stack(outputs: Sequence[Output]) -> NDArray[Any]:
        """The values of Outputs of one shape as a matrix."""
        assert all(output.error is None for output in outputs)
        return np.stack([np.array(output.values) for output in outputs])
