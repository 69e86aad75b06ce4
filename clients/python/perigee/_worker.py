"""A worker: sessions one after the other, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ._session import ConnectionEnded, Function, Session, log
from .api.v1 import functions_pb2 as wire

if TYPE_CHECKING:
    from ._client import Client

#: Seconds before the first attempt to come back, which double up to the longest.
_RETRY_FIRST = 0.1
_RETRY_LONGEST = 10.0


class Worker:
    """A worker, which begins with :meth:`serve` or :meth:`run`, and is not used again after its end."""

    def __init__(self, client: Client, service: str, functions: Mapping[str, Function], capacity: int) -> None:
        if not functions:
            raise ValueError("a worker needs a function")
        if not 1 <= capacity <= 1000:
            raise ValueError(f"capacity must be 1 to 1000, found {capacity}")
        self._client = client
        self._functions = dict(functions)
        self._register = wire.Register(
            project=client.project, service=service, functions=list(functions), capacity=capacity
        )
        self._sessions: dict[asyncio.Task[None], Session] = {}
        self._stopping = asyncio.Event()

    def serve(self, *, grace: float = 30.0) -> None:
        """Runs it until SIGTERM or SIGINT: then it takes no more calls, and ends when those that it has are answered, or
        after ``grace`` seconds.

        Raises :class:`ConnectionEnded` where the gateway refuses it.
        """
        asyncio.run(self._serve(grace))

    async def run(self) -> None:
        """Runs it until :meth:`stop`. Cancelled, its calls end at once.

        Raises :class:`ConnectionEnded` where the gateway refuses it.
        """
        try:
            await self._attempts()
        finally:
            for task in self._sessions:
                task.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)

    async def stop(self, *, grace: float = 30.0) -> None:
        """Takes no more calls. Those that it has end by themselves, or after ``grace`` seconds."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for session in list(self._sessions.values()):
                    await session.drain()
                if self._sessions:
                    await asyncio.wait(list(self._sessions))
        for session in list(self._sessions.values()):
            session.close()

    async def _serve(self, grace: float) -> None:
        stops: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: stops.add(asyncio.create_task(self.stop(grace=grace))))
        await self.run()

    async def _attempts(self) -> None:
        delay = _RETRY_FIRST
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                await self._session()
            except ConnectionEnded as error:
                if error.is_final:
                    await self._ended()
                    raise
                if not self._stopping.is_set():
                    log.warning("not connected: %s", error)
            if time.monotonic() - begin > _RETRY_LONGEST:
                delay = _RETRY_FIRST
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay * random.uniform(0.5, 1))
            delay = min(delay * 2, _RETRY_LONGEST)
        await self._ended()

    async def _ended(self) -> None:
        """Waits until no session has a call any more."""
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _session(self) -> None:
        """One session, until it ends or the node wants no more calls by it, while it ends those that it has."""
        try:
            token = await asyncio.to_thread(self._client.token)
        except Exception as error:
            raise ConnectionEnded("UNAUTHENTICATED", f"there is no token: {error}", False) from error
        if self._stopping.is_set():
            return
        session = Session(self._client.channel(), self._register, self._functions)
        task = asyncio.create_task(session.run(token))
        self._sessions[task] = session
        task.add_done_callback(self._forget)
        await session.leaving.wait()
        # One that has ended with an error ends now; one that drains goes on behind.
        await asyncio.wait([task], timeout=0)
        if task.done():
            task.result()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._sessions.pop(task, None)
        # It is told by whoever waits for it; one that ended while it drained has nobody who does.
        if not task.cancelled():
            task.exception()
