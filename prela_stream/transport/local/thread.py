"""A thread that owns one `Database`: the event loop hands it jobs and awaits what they return.

A job that has begun is finished whether or not anyone still waits for it, so cancelling never leaves a transaction open; one
that has not begun is withdrawn. The thread is a plain daemon and no executor: Python closes those when the main thread ends,
and what other threads record until the process exits has to be written all the same.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from anyio import CancelScope

from prela_stream.errors import TransportError
from prela_stream.transport.local.database import Database
from prela_stream.transport.options import LocalOptions

T = TypeVar("T")
logger = logging.getLogger("prela_stream.transport.local")


class DatabaseThread:
    """Runs jobs one after the other on a database of its own. Started by the first job."""

    def __init__(self, options: LocalOptions, name: str) -> None:
        self._name = name
        self._database = Database(options)
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[Database], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._pid = os.getpid()
        self.closed = False

    async def run(self, job: Callable[[Database], T]) -> T:
        """What `job` returns or raises; TransportError after the close."""
        if self.closed:
            msg = f"this {self._name} of the local transport is closed"
            raise TransportError(msg)
        if self._pid != os.getpid():
            msg = f"this {self._name} belongs to process {self._pid}: after a fork, open a transport of your own"
            raise TransportError(msg)
        return await asyncio.wrap_future(self._submit(job))

    def spare(self, job: Callable[[Database], None]) -> Future[None] | None:
        """Run `job` when its turn comes, for nobody: a TransportError of it is logged. None after the close."""

        def quietly(database: Database) -> None:
            try:
                job(database)
            except TransportError as error:
                logger.warning("housekeeping is put off: %s", error)

        return None if self.closed else self._submit(quietly)

    async def aclose(self, last: Callable[[Database], None] | None = None) -> None:
        """Finish what was begun, run `last`, close the database and end the thread. The second call does nothing."""
        if self.closed or self._pid != os.getpid():
            return  # after a fork the thread and its connection are the parent's
        if last is not None:
            self.spare(last)
        self.closed = True
        done = self._submit(Database.close)
        self._jobs.put(None)
        with CancelScope(shield=True):
            await asyncio.shield(asyncio.wrap_future(done))
        if self._thread is not None:
            self._thread.join()  # it has nothing left to do but to end

    def _submit(self, job: Callable[[Database], T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((future, job))
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"prela-{self._name}", daemon=True)
                self._thread.start()
        return future

    def _work(self) -> None:
        while (order := self._jobs.get()) is not None:
            future, job = order
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = job(self._database)
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                future.set_result(result)
            del order, future, job  # an idle thread holds on to nobody's results
