"""Where a gateway is, and as whom its workers come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import grpc

from ._session import CHANNEL, Function
from ._worker import Worker

Token = str | Callable[[], str]


def connect(url: str, *, project: str, token: Token = "") -> Client:
    """A client of the gateway at ``url``, ``http://`` or ``https://``.

    ``token`` is that of the workers, or what makes one: it is called before each registration, since tokens expire.
    """
    return Client(url, project=project, token=token)


class Client:
    """Where a gateway is, and as whom its workers come. It holds no connection of its own."""

    def __init__(self, url: str, *, project: str, token: Token = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"invalid address {url}: expected http://HOST:PORT or https://HOST:PORT")
        if not project:
            raise ValueError("project is required")
        self._is_plain = parts.scheme == "http"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._target = f"{host}:{parts.port or (80 if self._is_plain else 443)}"
        self.project = project
        self._token = token

    def worker(self, service: str, functions: Mapping[str, Function], *, capacity: int = 64) -> Worker:
        """A worker of ``service`` with these functions, which takes up to ``capacity`` calls at once (at most 1000)."""
        return Worker(self, service, functions, capacity)

    def token(self) -> str:
        """The token for the next registration."""
        return self._token() if callable(self._token) else self._token

    def channel(self) -> grpc.aio.Channel:
        """A connection, which begins with its first call."""
        if self._is_plain:
            return grpc.aio.insecure_channel(self._target, options=CHANNEL)
        return grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(), options=CHANNEL)
