"""One connection to the log file: transactions that wait their turn, errors in our words, checkpoints of the WAL.

A `Database` belongs to one thread. It opens itself when it is first used and again after an error that leaves the
connection in doubt.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from prela_stream.errors import OutcomeUnknownError, TransportError
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.local import schema
from prela_stream.transport.options import LocalOptions

T = TypeVar("T")

_TRY_SECONDS: Final = 0.025
"""SQLite's own wait for a lock sleeps ever longer, up to 100 ms, and starves behind a busy writer: we ask it for many short
waits instead of a long one."""
_CHECKPOINT_BYTES: Final = 16 << 20
_CHECKPOINT_SECONDS: Final = 1.0
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Database:
    """A connection to the log file of `options`, made at its first use."""

    def __init__(self, options: LocalOptions) -> None:
        self.path = Path(options.path)
        self.places: dict[TopicPartition, schema.Place] = {}
        """What `catalog` has found in this file so far; partitions never change while it is open."""
        self._options = options
        self._wal = Path(f"{options.path}-wal")
        self._connection: sqlite3.Connection | None = None
        self._checkpoint_at = _CHECKPOINT_BYTES

    def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` on one snapshot of the log; it may be run again, so it must change nothing. Raises TransportError."""

        def snapshot(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return job(connection)
            finally:
                self._roll_back(connection)

        return self._patiently("read", snapshot)

    def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` in a transaction of its own and make it durable.

        Raises:
            TransportError: nothing was written.
            OutcomeUnknownError: the commit itself failed.
        """

        def begin(connection: sqlite3.Connection) -> sqlite3.Connection:
            connection.execute("BEGIN IMMEDIATE")
            return connection

        connection = self._patiently("write", begin)
        try:
            result = job(connection)
        except sqlite3.Error as error:
            self._roll_back(connection)
            raise self._refused("write", error) from error
        except BaseException:
            self._roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Whether the commit frame reached the disk cannot be known from here: what a new connection finds is the truth.
            self.close()
            msg = f"the commit to {self.path} failed ({error}); it may or may not have been stored"
            raise OutcomeUnknownError(msg) from error
        self._tidy(connection)
        return result

    def data_version(self) -> int:
        """A number that changes whenever another connection has committed; raises TransportError."""
        return self._patiently("read", lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back. The next use opens a new one."""
        connection, self._connection = self._connection, None
        self.places.clear()
        if connection is not None:
            # An error here (of the last checkpoint, say) loses nothing: all that was committed is in the WAL.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _patiently(self, what: str, job: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + self._options.busy_timeout_ms / 1000
        while True:
            try:
                return job(self._connected())
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise self._refused(what, error) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            schema.make_file(self.path)
            connection = sqlite3.connect(self.path, timeout=_TRY_SECONDS, isolation_level=None, cached_statements=64)
            try:
                schema.prepare(connection, self.path)
                self._configure(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        full = self._options.synchronous == "full"
        connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        connection.execute(f"PRAGMA fullfsync = {int(full)}")  # macOS: without it a power cut can undo an fsync
        connection.execute(f"PRAGMA checkpoint_fullfsync = {int(full)}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see _tidy
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute("PRAGMA cache_size = -8000")
        connection.execute("PRAGMA trusted_schema = OFF")

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Move a long WAL into the file.

        Not left to SQLite's automatic checkpoint: that one runs beside other writers and loses a race with them in every
        version before 3.51.3, which corrupts the file (sqlite.org/wal.html#walresetbug). TRUNCATE takes the writers' lock first.
        """
        try:
            length = self._wal.stat().st_size
        except FileNotFoundError:
            self.close()  # somebody removed the file under us: go on with a new one instead of writing into nowhere
            return
        if length < self._checkpoint_at:
            return
        # A reader that will not move on must not cost every write a second: wait for as much again.
        self._checkpoint_at = length + _CHECKPOINT_BYTES
        try:
            connection.execute(f"PRAGMA busy_timeout = {int(_CHECKPOINT_SECONDS * 1000)}")
            if not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                self._checkpoint_at = _CHECKPOINT_BYTES
            connection.execute(f"PRAGMA busy_timeout = {int(_TRY_SECONDS * 1000)}")
        except sqlite3.Error:
            self.close()  # the transaction is durable all the same; whoever writes next tries again

    def _refused(self, what: str, error: sqlite3.Error) -> TransportError:
        if _is_busy(error):
            msg = (
                f"cannot {what} {self.path}: another process kept it locked for {self._options.busy_timeout_ms} ms "
                "(busy_timeout_ms); nothing was changed, try again"
            )
        elif _code(error) == sqlite3.SQLITE_NOTADB:
            msg = f"{self.path} is not a SQLite database; expected a log of prela_stream: choose another path"
        elif _code(error) == sqlite3.SQLITE_FULL:
            msg = f"cannot {what} {self.path}: the disk is full or the file has reached its limit; nothing was changed"
        elif _code(error) == sqlite3.SQLITE_CORRUPT:
            msg = f"{self.path} is damaged ({error}); nothing was changed: move the file away to begin a new log"
        else:
            msg = f"cannot {what} {self.path}: {error}; nothing was changed"
        return TransportError(msg)


def _code(error: sqlite3.Error) -> int:
    # Errors that the module raises itself carry no code. The low byte is the primary code.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in _BUSY
