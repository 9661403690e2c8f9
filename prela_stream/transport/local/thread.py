"""A thread that owns one `Database`: the event loop hands it jobs and awaits what they return.

A job that has begun is finished whether or not anyone still waits for it, so cancelling never leaves a transaction open; one
that has not begun is withdrawn.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"prela-{name}")
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
        return await asyncio.wrap_future(self._executor.submit(job, self._database))

    def spare(self, job: Callable[[Database], None]) -> None:
        """Run `job` when its turn comes, for nobody: a TransportError of it is logged."""

        def quietly(database: Database) -> None:
            try:
                job(database)
            except TransportError as error:
                logger.warning("housekeeping is put off: %s", error)

        if not self.closed:
            self._executor.submit(quietly, self._database)

    async def aclose(self, last: Callable[[Database], None] | None = None) -> None:
        """Finish what was begun, run `last`, close the database and end the thread. The second call does nothing."""
        if self.closed or self._pid != os.getpid():
            return  # after a fork the thread and its connection are the parent's
        if last is not None:
            self.spare(last)
        self.closed = True
        done: Future[None] = self._executor.submit(self._database.close)
        try:
            with CancelScope(shield=True):
                await asyncio.shield(asyncio.wrap_future(done))
        finally:
            # Without waiting if the wait was cut short: the thread ends by itself once it has closed the database.
            self._executor.shutdown(wait=done.done())
