"""Identity: by what a model is known again, whatever its folder is called. Reads a little of each file; no torch model.

Two folders with the same tensors, names and pooling have the same vectors and the same digest; a model that was trained
further has another one. A copy in another precision counts as another model.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from anydim.models.card import ModelCard
from anydim.models.weights import read_beginnings

_BYTES: Final = 4096  # of each tensor: training moves them all


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A model.

    Attributes:
        model: its name, for people.
        width: components of its full vector.
        pooling: how token states become a vector.
        digest: SHA-256 over the names, shapes and first bytes of its tensors, in hexadecimal digits.
    """

    model: str
    width: int
    pooling: str
    digest: str

    def is_same(self, other: Identity) -> bool:
        """Whether both stand for the same vectors; the name does not count."""
        return (self.width, self.pooling, self.digest) == (other.width, other.pooling, other.digest)


def identity_of(card: ModelCard) -> Identity:
    """The identity of a local model.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    digest = hashlib.sha256()
    for name, stored, beginning in read_beginnings(card.folder, _BYTES):
        digest.update(msgspec.json.encode([name, stored.dtype, stored.shape]))
        digest.update(beginning)
    return Identity(model=card.name, width=card.width, pooling=card.pooling.value, digest=digest.hexdigest())
