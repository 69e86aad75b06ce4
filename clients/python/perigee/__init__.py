"""Workers of Perigee: processes that dial in and take calls of functions."""

from ._client import Client, connect
from ._session import Call, ConnectionEnded, Function
from ._worker import Worker

__all__ = ["Call", "Client", "ConnectionEnded", "Function", "Worker", "connect"]
