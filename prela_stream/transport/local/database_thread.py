"""A thread that owns one `Database`. The event loop passes it jobs and awaits their results.

A job that has started is finished even if its caller was cancelled, so no transaction stays open; a job that has not started is
withdrawn. The thread is a plain daemon thread and not an executor: Python shuts executors down when the main thread ends,
but what other threads record until the process exits has to be written too.
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
from prela_stream.transport.local.database import Database, LogFile
from prela_stream.transport.refusals import closed

T = TypeVar("T")
logger = logging.getLogger("prela_stream.transport.local")


class DatabaseThread:
    """Runs jobs one after the other on one database. The first job starts the thread."""

    def __init__(self, file: LogFile, name: str) -> None:
        self._name = name
        self._database = Database(file)
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[Database], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._pid = os.getpid()
        self._postponed = False
        self.closed = False

    async def run(self, job: Callable[[Database], T]) -> T:
        """Return or raise what `job` returns or raises; TransportError after the close."""
        if self.closed:
            raise closed(f"{self._name} of the local transport")
        if self._pid != os.getpid():
            msg = f"this {self._name} belongs to process {self._pid}; after a fork, open a new transport in the child"
            raise TransportError(msg)
        return await asyncio.wrap_future(self._submit(job))

    def run_later(self, job: Callable[[Database], None], *, level: int = logging.WARNING) -> Future[None] | None:
        """Run `job` in its turn. No caller waits for it, so the first TransportError in a row is logged. None if closed."""

        def logged(database: Database) -> None:
            try:
                job(database)
                self._postponed = False
            except TransportError as error:
                if not self._postponed:
                    logger.log(level, "housekeeping of the local log is postponed until the log works again: %s", error)
                self._postponed = True

        return None if self.closed else self._submit(logged)

    async def aclose(self, last: Callable[[Database], None] | None = None) -> None:
        """Finish what was started, run `last`, close the database and end the thread. The second call does nothing."""
        if self.closed or self._pid != os.getpid():
            return  # after a fork the thread and its connection belong to the parent
        self._database.hurry()
        if last is not None:
            self.run_later(last)
        self.closed = True
        done = self._submit(Database.close)
        self._jobs.put(None)
        with CancelScope(shield=True):
            await asyncio.shield(asyncio.wrap_future(done))
        if self._thread is not None:
            self._thread.join()  # it has no job left

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
            del order, future, job  # an idle thread must not keep results alive
