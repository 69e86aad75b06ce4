"""One registration of a worker: a stream of ``perigee.api.v1.Functions/Work``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from .api.v1 import functions_pb2 as wire

log = logging.getLogger("perigee")

_PATH = "/perigee.api.v1.Functions/Work"
#: Seconds that the gateway may take to register a worker.
_REGISTER_TIMEOUT = 10
#: The most that a function may answer: a larger message would end the connection, and all calls with it.
_ANSWER_BYTES = 8 * 1024 * 1024
#: Of the text of an error, which may have what the caller sent in it.
_ERROR_CHARACTERS = 4096
CHANNEL = [
    # Parameters of 8 MiB, and claims.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Sessions of one process share no connection: the next one may lead to another node.
    ("grpc.use_local_subchannel_pool", 1),
]
#: Codes with which another attempt would be refused again.
_FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
}

Function = Callable[[Any, "Call"], Any]
"""A function, ``async`` or not. What it returns is its answer, as JSON; the text of what it raises is told to the caller.

One that is ``async`` is cancelled when nobody waits for its answer any more; others run on threads and look at
``call.cancelled``."""


@dataclass(frozen=True)
class Call:
    """A call as a function sees it."""

    id: str
    function: str
    auth: dict[str, Any]
    """Claims of the caller's valid token; without one none."""
    deadline: float
    """When nobody waits any more, by ``time.monotonic()``."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the answer any more."""

    def time_left(self) -> float:
        """Seconds until nobody waits any more."""
        return max(0.0, self.deadline - time.monotonic())


class ConnectionEnded(Exception):
    """Why a worker is not registered, or not any more."""

    def __init__(self, code: str, message: str, is_final: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        """Of gRPC, such as ``UNAVAILABLE``."""
        self.is_final = is_final
        """Whether another attempt would be refused again."""


class Session:
    """One registration, which :meth:`run` begins."""

    def __init__(self, channel: grpc.aio.Channel, register: wire.Register, functions: Mapping[str, Function]) -> None:
        self._channel = channel
        self._register = register
        self._functions = functions
        self._threads = ThreadPoolExecutor(register.capacity, thread_name_prefix="perigee")
        self._calls: dict[str, tuple[Call, asyncio.Task[None]]] = {}
        self._stream: Any = None
        self._task: asyncio.Task[Any] | None = None
        # The stream takes one message at a time.
        self._sending = asyncio.Lock()
        self._is_registered = False
        self._is_closed = False
        self.leaving = asyncio.Event()
        """Set when no more calls come by it."""

    async def run(self, token: str) -> None:
        """Takes calls until it ends. Raises :class:`ConnectionEnded` where it does not end by itself."""
        work = self._channel.stream_stream(
            _PATH,
            request_serializer=wire.WorkerMessage.SerializeToString,
            response_deserializer=wire.GatewayMessage.FromString,
        )
        self._task = asyncio.current_task()
        try:
            if self._is_closed:
                return
            if not token.isascii() or not token.isprintable() or " " in token:
                # What the library says of it may have the token in it.
                raise ConnectionEnded("UNAUTHENTICATED", "the token has characters that no token has", True)
            self._stream = work(metadata=[("authorization", f"Bearer {token}")] if token else None)
            async with asyncio.timeout(_REGISTER_TIMEOUT):
                await self._send(register=self._register)
                first = await self._stream.read()
            if first is grpc.aio.EOF or first.WhichOneof("message") != "registered":
                raise ConnectionEnded("UNKNOWN", "the gateway does not register workers", False)
            self._is_registered = True
            log.info("registered as a worker of %s", self._register.service)
            while (message := await self._stream.read()) is not grpc.aio.EOF:
                await self._take(message)
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
        except TimeoutError:
            raise ConnectionEnded("DEADLINE_EXCEEDED", "the gateway does not answer", False) from None
        except grpc.aio.AioRpcError as error:
            is_final = not self._is_registered and error.code() in _FINAL
            raise ConnectionEnded(error.code().name, error.details() or "", is_final) from None
        finally:
            for call, task in self._calls.values():
                call.cancelled.set()
                task.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)
            await self._channel.close()
            # Whoever waits for it sees how this ended.
            self.leaving.set()

    async def drain(self) -> None:
        """Takes no more calls: it ends when those that it has are answered."""
        self.leaving.set()
        if not self._is_registered:
            self.close()
            return
        # A stream that has ended needs not be told.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._send(drain=wire.Drain())

    def close(self) -> None:
        """Ends it and its calls."""
        self._is_closed = True
        if self._is_registered:
            self._stream.cancel()
        elif self._task is not None:
            # While there is no connection, the stream's own end is not told to who writes to it.
            self._task.cancel()

    async def _take(self, message: wire.GatewayMessage) -> None:
        match message.WhichOneof("message"):
            case "call":
                invocation = message.call
                left = invocation.timeout.ToTimedelta().total_seconds()
                call = Call(invocation.id, invocation.function, json.loads(invocation.auth), time.monotonic() + left)
                task = asyncio.create_task(self._answer(call, invocation.params))
                self._calls[call.id] = (call, task)
            case "cancel":
                if (known := self._calls.get(message.cancel.id)) is not None:
                    known[0].cancelled.set()
                    known[1].cancel()
            case "drain":
                self.leaving.set()

    async def _answer(self, call: Call, params: bytes) -> None:
        result = wire.Result(id=call.id)
        try:
            async with asyncio.timeout(call.time_left()):
                answer = await self._run(call, params)
            encoded = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
            if len(encoded) > _ANSWER_BYTES:
                raise ValueError(f"the answer is over the limit of {_ANSWER_BYTES} bytes")
            result.result = encoded
        except asyncio.CancelledError:
            # Nobody waits.
            return
        except Exception as error:
            if call.time_left() == 0:
                # The answer is nobody's: the gateway has told its caller why.
                return
            log.warning("function %s failed", call.function, exc_info=error)
            result.error = str(error)[:_ERROR_CHARACTERS].encode(errors="replace").decode() or type(error).__name__
        finally:
            call.cancelled.set()
            self._calls.pop(call.id, None)
        # The answer by a stream that has ended is nobody's.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._send(result=result)

    async def _run(self, call: Call, params: bytes) -> Any:
        function = self._functions.get(call.function)
        if function is None:
            raise LookupError(f"function {call.function} is not known")
        arguments = (json.loads(params), call)
        if inspect.iscoroutinefunction(function):
            return await function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _send(self, **message: Any) -> None:
        async with self._sending:
            await self._stream.write(wire.WorkerMessage(**message))
