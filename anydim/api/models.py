"""ServedModel: one model as clients see it, with the names it answers to. Models: all of them, to pick from by name.

They know no HTTP and no engine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from anydim.api.words import shortened
from anydim.errors import InvalidRequest, ModelNotFound
from anydim.intake.intake import Intake
from anydim.intake.scoring import ScoreIntake

_ANY: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model behind the server's routes.

    Attributes:
        intake: what turns its requests into Items; a ScoreIntake where it reranks or classifies.
        aliases: further names from ``--served-model-name``; ``*`` accepts every name.
        created: when it was loaded, in seconds since 1970.
    """

    intake: Intake | ScoreIntake
    aliases: tuple[str, ...] = ()
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        """The hub id, or the folder's last part."""
        return self.intake.card.name

    @property
    def names(self) -> tuple[str, ...]:
        """Every name in full, the one that answers carry first."""
        return tuple(dict.fromkeys([*(alias for alias in self.aliases if alias != _ANY), self.id]))

    @property
    def max_tokens(self) -> int:
        """The longest input, special tokens included."""
        return self.intake.max_tokens

    def answers_to(self, name: str) -> bool:
        """Whether a name is one of this model's: an alias, the id, or the id's last part in any case."""
        if name in self.names:
            return True
        return name.casefold() in (self.id.casefold(), self.id.rsplit("/", 1)[-1].casefold())

    @property
    def answers_to_all(self) -> bool:
        """Whether it also takes the names that no model has."""
        return _ANY in self.aliases


class Models:
    """The models of a server; the first of each kind is the default of its kind."""

    def __init__(self, served: Sequence[ServedModel]) -> None:
        """Hold at least one model."""
        self._served = tuple(served)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served)

    @property
    def first(self) -> ServedModel:
        """The first one, by whose name the server is known."""
        return self._served[0]

    @property
    def names(self) -> list[str]:
        """All names in full."""
        return [name for served in self._served for name in served.names]

    def find(self, name: str | None) -> ServedModel:
        """The model behind a name, of any kind; None picks the first.

        Raises:
            ModelNotFound: no served model answers to the name; the message lists the names.
        """
        found = self._find(name, self._served)
        if found is None:
            raise self._unknown(str(name))
        return found

    def embedder(self, name: str | None = None) -> tuple[ServedModel, Intake]:
        """The embedding model behind a name; None picks the default.

        Raises:
            ModelNotFound: no served model answers to the name, or none embeds.
            InvalidRequest: the model does not embed.
        """
        served = self._of_kind(name, Intake, "embedding model", "--model")
        if not isinstance(served.intake, Intake):
            raise InvalidRequest(f"{served.names[0]} is a reranker or classifier and gives no embeddings", "model")
        return served, served.intake

    def scorer(self, name: str | None = None) -> tuple[ServedModel, ScoreIntake]:
        """The reranker or classifier behind a name; None picks the default.

        Raises:
            ModelNotFound: no served model answers to the name, or none scores.
            InvalidRequest: the model does not score.
        """
        served = self._of_kind(name, ScoreIntake, "reranker", "--reranker")
        if not isinstance(served.intake, ScoreIntake):
            raise InvalidRequest(f"{served.names[0]} is an embedding model and cannot rerank", "model")
        return served, served.intake

    def reranker(self, name: str | None = None) -> tuple[ServedModel, ScoreIntake]:
        """As ``scorer``, with the one score that documents can be ordered by.

        Raises:
            ModelNotFound: as ``scorer``.
            InvalidRequest: the model does not score, or has several scores.
        """
        served, intake = self.scorer(name)
        if not intake.scorer.is_reranker:
            raise InvalidRequest(
                f"{served.names[0]} has {len(intake.scorer.labels)} labels and gives no order; use /predict", "model"
            )
        return served, intake

    def _of_kind(self, name: str | None, kind: type, words: str, flag: str) -> ServedModel:
        """The model behind a name: one of the kind where there is one, else another, which the caller refuses."""
        fitting = [served for served in self._served if isinstance(served.intake, kind)]
        found = self._find(name, fitting) or (None if name is None else self._find(name, self._served))
        if found is not None:
            return found
        if name is None:
            raise ModelNotFound(f"this server has no {words}: start it with {flag} MODEL", "model")
        raise self._unknown(name)

    def _find(self, name: str | None, among: Sequence[ServedModel]) -> ServedModel | None:
        if name is None:
            return among[0] if among else None
        exact = next((served for served in among if served.answers_to(name)), None)
        if exact is not None or any(served.answers_to(name) for served in self._served):
            return exact
        return next((served for served in among if served.answers_to_all), None)

    def _unknown(self, name: str) -> ModelNotFound:
        known = ", ".join(self.names)
        return ModelNotFound(f"The model {shortened(name)} does not exist; this server has: {known}", "model")
