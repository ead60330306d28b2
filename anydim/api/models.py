"""ServedModel: one model as clients see it, with the names it answers to. It knows no HTTP and no engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from anydim.api.words import shortened
from anydim.errors import ModelNotFound
from anydim.intake.intake import Intake

_ANY: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model behind the server's routes.

    Attributes:
        intake: what turns its requests into Items.
        aliases: further names from ``--served-model-name``; ``*`` accepts every name.
        created: when it was loaded, in seconds since 1970.
    """

    intake: Intake
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

    def answers_to(self, name: str) -> bool:
        """Whether a request for ``name`` is for this model: an alias, the id, or the id's last part in any case."""
        if _ANY in self.aliases or name in self.names:
            return True
        return name.casefold() in (self.id.casefold(), self.id.rsplit("/", 1)[-1].casefold())

    def check(self, name: str | None) -> None:
        """Accept the ``model`` field of a request; None picks the default, which is this model.

        Raises:
            ModelNotFound: no served model answers to the name; the message lists the names.
        """
        if name is not None and not self.answers_to(name):
            known = ", ".join(self.names)
            raise ModelNotFound(f"The model {shortened(name)} does not exist; this server has: {known}", "model")
