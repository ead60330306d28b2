"""The socket: who holds a taken port, which port is free, and which address can be opened."""

import os
import socket
from contextlib import closing

import pytest

from anydim.cli.listen import address_to_open, is_loopback, listen
from anydim.errors import ConfigError


def test_a_free_port_accepts_at_once() -> None:
    with closing(listen("127.0.0.1", 0)) as listener, closing(socket.socket()) as client:
        client.connect(listener.getsockname())


def test_a_taken_port_names_its_holder_and_the_next_free_one() -> None:
    with closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            listen("127.0.0.1", port)
        message = caught.value.message
        assert f"port {port} on 127.0.0.1 is taken" in message
        assert f"process {os.getpid()} (" in message
        suggested = int(message.rsplit("--port ", 1)[1])
        with closing(listen("127.0.0.1", suggested)) as second:
            assert second.getsockname()[1] == suggested > port


def test_a_port_that_is_bound_but_silent_is_taken_too() -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="is taken"):
            listen("127.0.0.1", other.getsockname()[1])


def test_a_port_can_be_had_again_at_once() -> None:
    with closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port))), closing(first.accept()[0]):
            pass
    with closing(listen("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("host", ["192.0.2.1", "a host", "\udcff", "x" * 300])
def test_a_foreign_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="--host"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "has_tls", "address"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8"),
        ("0.0.0.0", False, "http://localhost:8"),
        ("::", True, "https://localhost:8"),
        ("::1", False, "http://[::1]:8"),
        ("example.org", True, "https://example.org:8"),
    ],
)
def test_the_address_can_be_opened(host: str, has_tls: bool, address: str) -> None:
    assert address_to_open(host, 8, has_tls) == address


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.0.0.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")] == [False] * 4
