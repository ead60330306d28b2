"""Cluster: the line to a Ray cluster, and its errors as ours. It knows addresses and Ray; it knows no jobs, no models.

Needs the extra ray.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Final

import ray
from ray.exceptions import RayError

from anydim.deploy.pool import LOCAL
from anydim.errors import AnydimError, ComputeFailed, ConfigError

_CLIENT: Final = "ray://"
_KNOCK_SECONDS: Final = 10.0
_QUIET: Final = ("ray.data", "ray.serve")


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """A line to a cluster while the block runs; one that this process has already is used and kept.

    Args:
        address: ``local``, ``auto`` for the cluster that this machine belongs to, or ``HOST:PORT`` of a cluster's head.

    Raises:
        ConfigError: there is no cluster at that address.
    """
    if address.startswith(_CLIENT):
        raise ConfigError(
            f"{address} is an address of Ray Client, over which Ray Data does not run: start the command on a machine "
            "of the cluster with --ray auto, or hand it in with `ray job submit`"
        )
    _knock(address)
    if ray.is_initialized():
        yield
        return
    try:
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **_of_a_new_one(address))
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {_first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def clear_errors(what_next: str) -> Iterator[None]:
    """Raise our own errors from workers as they were raised there, and Ray's as ComputeFailed.

    Args:
        what_next: what to do about it, for people.
    """
    try:
        yield
    except AnydimError as error:
        raise _ours(error) or error from None
    except RayError as error:
        found = _ours(error)
        if found is not None:
            raise found from None
        raise ComputeFailed(f"Ray gave up: {_first_line(error)}; {what_next}") from error


def lack_of(wanted: Mapping[str, float]) -> str:
    """What the cluster lacks now of so many GPUs and CPUs, for people; empty where it has them."""
    has = ray.cluster_resources()
    lacking = {kind: number for kind, number in wanted.items() if number > has.get(kind, 0)}
    return ", ".join(f"{number:g} {kind}s of {has.get(kind, 0):g}" for kind, number in lacking.items())


def quiet() -> None:
    """Let Ray's libraries say only what has gone wrong."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """A handler of SIGTERM stays what it was: Ray's ends the process with a trace and without a word of ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Whether anyone listens at HOST:PORT: Ray itself would go on asking for many minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {_first_line(error)}") from error


def _of_a_new_one(address: str) -> dict[str, bool]:
    return {"include_dashboard": False} if address == LOCAL else {}


def _ours(error: BaseException | None) -> AnydimError | None:
    """The error of ours that Ray has wrapped, however often."""
    while error is not None:
        inner = getattr(error, "cause", None) or error.__cause__
        if isinstance(error, AnydimError) and not isinstance(error, RayError):
            return error
        error = inner
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
