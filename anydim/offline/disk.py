"""Disk: what can be in the way of an output, said before the work or when it comes.

It knows files and folders; it knows no formats, no shards and no models.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from anydim.errors import ConfigError, StorageFailed

_LANCE: Final = ".lance"
_LANCE_VERSIONS: Final = "_versions"  # every table of Lance has it


class Claim:
    """A folder belongs to one command at a time, until that ends, however it ends."""

    def __init__(self, folder: Path, whose: Path) -> None:
        """Nothing is claimed yet.

        Args:
            folder: what is claimed; it is made where it is not there.
            whose: the output, for people.
        """
        self._lock = folder / "lock"
        self._whose = whose
        self._file: IO[bytes] | None = None

    @property
    def name(self) -> str:
        """The file in the folder that says so."""
        return self._lock.name

    def take(self) -> None:
        """Claim it.

        Raises:
            ConfigError: another command has.
        """
        while self._file is None:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = self._lock.open("wb")
            except FileNotFoundError:  # the other command ends, and its folder with it
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise ConfigError(f"another command is at work on {self._whose}; name another output") from None
            except OSError:  # a file system without locks
                self._file = file
            else:
                self._file = self._if_there(file)

    def release(self) -> None:
        """Let others have it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Let others have it, without its file; and without the folder, where nothing else is in it.

        The file goes before it is closed, since another command may have it a moment later. A network's file system
        keeps it under another name until then, which is why the folder goes last.
        """
        self._lock.unlink(missing_ok=True)
        self.release()
        with suppress(OSError):
            self._lock.parent.rmdir()

    def _if_there(self, file: IO[bytes]) -> IO[bytes] | None:
        """The file, unless another command has removed it between its opening and its lock."""
        try:
            if os.path.samestat(os.fstat(file.fileno()), self._lock.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()
        return None


def check_place(output: Path) -> None:
    """Whether a file of that name can be made at all.

    Raises:
        ConfigError: a folder is in its way, or there is no permission.
    """
    if output.is_dir() and (output.suffix != _LANCE or not (output / _LANCE_VERSIONS).exists()):
        raise ConfigError(f"{output} is a folder, and no output of an earlier job: name another output")
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"{output} cannot be made: {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{output} cannot be made: no permission to write into {above}")


@contextmanager
def clear_disk_errors(output: Path) -> Iterator[None]:
    """Raise what a disk says as StorageFailed, with what to do."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or output, error.strerror or str(error)
        raise StorageFailed(
            f"{where} cannot be written: {why}; finished shards are kept, and the same command with --resume goes on"
        ) from error
