"""Listen: the server's socket, and what to say when it cannot be had. It knows addresses; it knows no HTTP."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys
from typing import Final

import psutil

from anydim.config import ServerSettings
from anydim.errors import ConfigError

_BACKLOG: Final = 2048
_PORTS_TRIED: Final = 100
# A client whose machine or network has gone says nothing: ask it, and let it go after two minutes without an answer.
_ALIVE_CHECKS: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any free one.

    It listens before anything else happens, so that a taken port fails at once and two servers never share one.

    Raises:
        ConfigError: the address is unknown or taken, or may not be used; the message names who holds the port, where
            that can be seen, and the next free one.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"--host {host!r} is no address of this machine") from None
    try:
        return _listening(family, address)
    except OSError as error:
        raise ConfigError(_complaint(error, family, host, port)) from error


def listen_often(host: str, port: int, count: int) -> list[socket.socket]:
    """One listening socket for each of ``count`` processes, all on the same port.

    Linux spreads new connections over sockets that share a port. Elsewhere it is the same socket for all.

    Raises:
        ConfigError: see ``listen``.
    """
    first = listen(host, port)
    if count == 1 or not sys.platform.startswith("linux"):
        return [first] * count
    family, address = first.family, first.getsockname()
    first.close()  # it has shown that nobody else listens here; sharers do not get along with one that does not share
    try:
        return [_listening(family, address, shares=True) for _ in range(count)]
    except OSError as error:
        raise ConfigError(_complaint(error, family, host, port)) from error


def open_file_limit() -> int:
    """How many files this process may open, after raising its limit as far as it may by itself."""
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def address_to_open(host: str, port: int, has_tls: bool) -> str:
    """The address a person can open: localhost where the server listens on all addresses."""
    scheme = "https" if has_tls else "http"
    if host in ("", "0.0.0.0", "::"):
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_hosts(settings: ServerSettings) -> tuple[str, ...] | None:
    """The names of a server that only this machine reaches; None where others may reach it, under names of theirs."""
    if not is_loopback(settings.host):
        return None
    return ("localhost", "127.0.0.1", "[::1]", settings.host, f"[{settings.host}]", *settings.allowed_host)


def _listening(family: int, address: tuple[str | int, ...] | tuple[int, bytes], shares: bool = False) -> socket.socket:
    # asyncio turns off the delay of small packets only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # connections take it over
        for name, value in _ALIVE_CHECKS:
            if hasattr(socket, name):  # not on every platform
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if family == socket.AF_INET6 and address[0] == "::":  # all addresses means those of IPv4 too
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _complaint(error: OSError, family: int, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        free = _next_free(family, host, port)
        hint = f", or use --port {free}" if free else ""
        return f"port {port} on {host} is taken by {_holder(port)}; ask its owner to free it{hint}"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user; ports from 1024 on need no privileges"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host!r} is no address of this machine"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def _holder(port: int) -> str:
    """The process that listens on a port, as far as this user may see it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            is_it = connection.laddr and connection.laddr.port == port and connection.raddr == ()
            if is_it and connection.pid is not None:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "a process that this user may not see"


def _next_free(family: int, host: str, port: int) -> int | None:
    for candidate in range(port + 1, min(port + 1 + _PORTS_TRIED, 65536)):
        with contextlib.suppress(OSError):
            _listening(family, (host, candidate)).close()
            return candidate
    return None
