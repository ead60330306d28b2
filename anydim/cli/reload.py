"""Reload: what SIGHUP reads again while requests go on: the file of keys, and the certificate.

It knows files and who holds what was read; it knows no requests.
"""

from __future__ import annotations

import logging
import ssl

from anydim.api.auth import KeyRing
from anydim.config import ServerSettings
from anydim.errors import ConfigError
from anydim.logs import NEWS

_NEWS = logging.getLogger(NEWS)


class Reload:
    """Reads files again when it is called. What cannot be used leaves everything as it was."""

    def __init__(self, settings: ServerSettings, keys: KeyRing | None) -> None:
        """Know what there is to read again."""
        self._settings = settings
        self._keys = keys if keys is not None and keys.has_file else None
        self.tls: ssl.SSLContext | None = None

    @property
    def is_needed(self) -> bool:
        """Whether there is any file to read again; without one SIGHUP ends the server, as it ends any program."""
        return self._keys is not None or self._settings.tls_cert is not None

    def __call__(self) -> None:
        """Read again."""
        if self._keys is not None:
            self._reload_keys(self._keys)
        if self.tls is not None:
            self._reload_certificate(self.tls)

    def _reload_keys(self, keys: KeyRing) -> None:
        try:
            keys.reload()
        except ConfigError as error:
            _NEWS.error("the keys stay as they were: %s", error.message)
        else:
            _NEWS.info("read the file of keys again: %d keys are known now", len(keys))

    def _reload_certificate(self, context: ssl.SSLContext) -> None:
        try:
            load_certificate(self._settings, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a broken pair must not get in
            load_certificate(self._settings, context)
        except ConfigError as error:
            _NEWS.error("the certificate stays as it was: %s", error.message)
        else:
            _NEWS.info("read the certificate again")


def load_certificate(settings: ServerSettings, context: ssl.SSLContext) -> None:
    """Read ``--tls-cert`` and ``--tls-key`` into a context; connections from then on are greeted with it.

    Raises:
        ConfigError: a file cannot be read, they do not fit each other, or the key is encrypted.
    """
    if settings.tls_cert is None:
        raise ConfigError("--tls-key needs --tls-cert")
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")  # never asked for on the terminal
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"--tls-cert and --tls-key cannot be used: {reason}") from error
