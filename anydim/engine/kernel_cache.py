"""Kernel cache: where compiled kernels are kept from one start to the next.

Compiling takes seconds, and a start that finds its kernels skips them. It knows folders and Triton's variable for
them; it knows no kernels. Imports no torch.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOG = logging.getLogger(__name__)
_VARIABLE: Final = "TRITON_CACHE_DIR"
_STAND_IN: Final = "anydim-kernels-"
_LEAST_FREE: Final = 64 << 20  # all kernels of a model take a few MiB


def place_kernels(cache: Path, environ: MutableMapping[str, str]) -> Path:
    """Choose the folder of compiled kernels and tell Triton, which reads it when it compiles first.

    A folder that cannot be written, or whose disk is full, must not keep a server from starting: a folder for temporary
    files stands in, one of this user's own, and the log says so.

    Args:
        cache: the folder of everything that anydim keeps; ``kernels`` below it is used unless the variable is set.
        environ: the process's environment.
    """
    wanted = Path(environ.get(_VARIABLE) or cache / "kernels")
    for folder in _candidates(wanted):
        reason = _why_not(folder)
        if reason is None:
            environ[_VARIABLE] = str(folder)
            return folder
        _LOG.warning("compiled kernels cannot be kept in %s (%s)", folder, reason)
    return wanted


def _candidates(wanted: Path) -> Iterator[Path]:
    yield wanted
    with suppress(OSError):  # there may be no folder for temporary files at all
        yield Path(tempfile.gettempdir()) / f"{_STAND_IN}{_user()}"
        yield Path(tempfile.mkdtemp(prefix=_STAND_IN))


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _why_not(folder: Path) -> str | None:
    """Why kernels cannot be kept there; None where they can."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
        facts = folder.lstat()
    except OSError as error:
        return error.strerror or type(error).__name__
    if folder.name.startswith(_STAND_IN) and (stat.S_ISLNK(facts.st_mode) or facts.st_uid != _user()):
        return "it is not this user's own, and what lies there is run"
    return None if free >= _LEAST_FREE else f"{free >> 20} MiB are free on its disk"
