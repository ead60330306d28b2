"""Everything that anydim raises on purpose, as one tree.

It knows kinds, messages and the field at fault. It does not know HTTP: each dialect maps a kind to its own
status and shape (see api/status.py).

    AnydimError                 the root; catch it to catch all of them
    |- InvalidRequest           the request is at fault: a field has a wrong value            kind invalid
    |  |- NoInput               there is nothing to work on                                   kind empty
    |  |- TooLong               a text has more tokens than the model reads                   kind too_long
    |  |- ModelNotFound         no served model answers to that name                          kind not_found
    |  |- NotAcceptable         the answer cannot take the form that was asked for            kind not_acceptable
    |- BodyTooLarge             the body is larger than the server reads                      kind too_large
    |- Unauthorized             no key, or a wrong one                                        kind unauthorized
    |- Overloaded               the queue is full; try again later                            kind overloaded
    |- DeadlineExceeded         the time that the client gave has passed                      kind deadline
    |- Unavailable              the engine is starting, stopping, stuck or dead               kind unavailable
    |- ComputeFailed            the forward failed for this input                             kind failed
    |- StorageFailed            a disk did not take what was written to it                  kind storage
    |- ConfigError              a flag, an environment variable or a file is wrong            kind config
    |- ModelError               a model folder or its download is wrong or unsupported        kind model
    |- MissingExtra             a feature needs a package that is not installed               kind missing_extra
"""

from __future__ import annotations

from typing import ClassVar


class AnydimError(Exception):
    """Root of the tree. ``kind`` is stable and machine-readable; ``message`` is for people."""

    kind: ClassVar[str] = "failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(AnydimError):
    """The request is at fault. ``param`` names the field, or is None where no single field is to blame."""

    kind = "invalid"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NoInput(InvalidRequest):
    """A list of texts is empty."""

    kind = "empty"


class TooLong(InvalidRequest):
    """A text has more tokens than the model reads, and cutting it was not allowed."""

    kind = "too_long"


class ModelNotFound(InvalidRequest):
    """No served model answers to the name in the request."""

    kind = "not_found"


class NotAcceptable(InvalidRequest):
    """The answer cannot take the form that the Accept header asks for."""

    kind = "not_acceptable"


class BodyTooLarge(AnydimError):
    """The request's body is larger than the server reads."""

    kind = "too_large"


class Unauthorized(AnydimError):
    """The key is missing or wrong."""

    kind = "unauthorized"


class Overloaded(AnydimError):
    """The queue is full. ``retry_after`` is an estimate in seconds."""

    kind = "overloaded"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(AnydimError):
    """The time that the client gave has passed; the work was not done, or its answer comes too late."""

    kind = "deadline"


class Unavailable(AnydimError):
    """The engine is starting, draining, stuck or dead. The request may be sent again."""

    kind = "unavailable"


class ComputeFailed(AnydimError):
    """The forward failed for this input; others in the same batch are not affected."""

    kind = "failed"


class StorageFailed(AnydimError):
    """A disk did not take what was written to it: it is full, or is not ours to write to."""

    kind = "storage"


class ConfigError(AnydimError):
    """A flag, an environment variable or a settings file is wrong."""

    kind = "config"


class ModelError(AnydimError):
    """A model folder or its download is wrong, incomplete or not supported."""

    kind = "model"


class MissingExtra(AnydimError):
    """A feature needs an optional package; the message names the pip command."""

    kind = "missing_extra"
