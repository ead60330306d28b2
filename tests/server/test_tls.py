"""TLS on a real server process: only with it, only with a certificate that fits, renewed without a restart."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from tests.server.process import ServerProcess, serving


def write(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def trusting(*authorities: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for authority in authorities:
        authority.configure_trust(context)
    return context


def status(server: ServerProcess, context: ssl.SSLContext) -> int:
    body = json.dumps({"input": "hello"}).encode()
    request = urllib.request.Request(server.address + "/v1/embeddings", body)
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        return int(answer.status)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_requests_go_over_tls_alone_and_the_certificate_is_renewed(minilm_folder: Path, tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    certificate, key = write(first, tmp_path)
    with serving(minilm_folder, "--tls-cert", certificate, "--tls-key", key) as server:
        assert server.address.startswith("https://127.0.0.1:")
        assert status(server, trusting(first)) == 200
        with pytest.raises(OSError, match="certificate"):
            status(server, ssl.create_default_context())
        plain = ("127.0.0.1", urlsplit(server.address).port or 0)
        with contextlib.closing(socket.create_connection(plain, 30)) as line:
            line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1 200" not in line.recv(1000)
        old = trusting(first)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            status(server, old)
        key.write_bytes(b"broken")
        server.process.send_signal(signal.SIGHUP)
        server.line_with("the certificate stays as it was")
        assert status(server, trusting(first)) == 200
        write(second, tmp_path)
        server.process.send_signal(signal.SIGHUP)
        server.line_with("read the certificate again")
        assert status(server, trusting(second)) == 200


def encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    private = form.load_pem_private_key(key, None)
    return private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret"))


def test_a_pair_that_cannot_be_used_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    certificate, key = write(trustme.CA(), tmp_path)
    (tmp_path / "encrypted.pem").write_bytes(encrypted(key.read_bytes()))
    (tmp_path / "other").mkdir()
    _, other = write(trustme.CA(), tmp_path / "other")
    for words in (
        ["--tls-cert", str(certificate), "--tls-key", str(other)],
        ["--tls-cert", str(certificate), "--tls-key", str(tmp_path / "encrypted.pem")],
        ["--tls-cert", str(tmp_path / "absent")],
        ["--tls-key", str(key)],
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "anydim", "serve", "no/model", *words, "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == 2, words
        assert "--tls-cert" in ended.stderr
        assert "no/model" not in ended.stderr
