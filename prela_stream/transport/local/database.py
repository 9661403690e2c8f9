"""A connection to the log file: transactions that wait for their turn, errors that name the file, checkpoints of the WAL.

A `Database` belongs to one thread. It opens the file when it is first used, after an error that leaves the connection in
doubt, and when the file at its path was removed or replaced: SQLite would go on with a file that no other process can open.
"""

import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from prela_stream import telemetry
from prela_stream.errors import OutcomeUnknownError, TransportError
from prela_stream.files import inode_of, is_first_of_its_folder
from prela_stream.transport.base import TopicPartition, TopicSpec
from prela_stream.transport.local import schema, topic_table
from prela_stream.transport.local.schema import PartitionRow
from prela_stream.transport.options import LocalOptions
from prela_stream.transport.refusals import unknown_topic

T = TypeVar("T")
logger = logging.getLogger("prela_stream.transport.local")

_CLOSING_SECONDS: Final = 1.0
"""How long a close waits for a lock: SIGTERM ends a process soon, and a group misses its member after the session timeout."""
_TRY_SECONDS: Final = 0.025
"""SQLite's wait for a lock sleeps for up to 100 ms and starves behind a busy writer. Many short waits do not."""
_CHECKPOINT_BYTES: Final = 16 << 20
_CHECKPOINT_SECONDS: Final = 1.0
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class LogFile:
    """What all connections of one transport share: the path, the topics that it created, and which file was found there."""

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self.path = Path(os.path.abspath(options.path))  # noqa: PTH100 - Path.resolve would follow a symlink, once and for all
        self._lock = threading.Lock()
        self._topics: dict[str, TopicSpec] = {}
        self._id = ""

    def require(self, specs: Iterable[TopicSpec]) -> None:
        """Remember topics that this transport created. They are created again if the file is replaced."""
        with self._lock:
            self._topics |= {spec.name: spec for spec in specs}

    def opened(self, log_id: str) -> list[TopicSpec]:
        """A connection has found this file. The first one that finds a new file reports it; returns the topics to create."""
        with self._lock:
            replaced = self._id not in ("", log_id)
            self._id = log_id
            required = list(self._topics.values())
        if replaced:
            telemetry.LOCAL_LOGS_REPLACED.add()
            logger.log(
                logging.WARNING if is_first_of_its_folder(self.path) else logging.DEBUG,
                "the log file %s was removed or replaced; continuing with the file that is there now. Records that were only in "
                "the former file are lost",
                self.path,
            )
        return required


class Database:
    """A connection to a log file, opened by its first use."""

    def __init__(self, file: LogFile) -> None:
        self.path = file.path
        self._file = file
        self._options = file.options
        self._wal = self.path
        self._inode: tuple[int, int] | None = None
        self._wal_inode: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._log_id = ""
        self._partitions: dict[TopicPartition, PartitionRow] = {}
        self._checkpoint_at = _CHECKPOINT_BYTES
        self._patience_ends = math.inf

    def hurry(self) -> None:
        """Wait no longer for a lock that another process holds: this database will be closed. Called by another thread."""
        self._patience_ends = time.monotonic() + _CLOSING_SECONDS

    def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` on one snapshot of the log. It may run twice, so it must not change anything. Raises TransportError."""

        def snapshot(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return job(connection)
            finally:
                self._roll_back(connection)

        return self._retry_while_busy("read", snapshot)

    def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` in one transaction and make it durable.

        Raises:
            TransportError: nothing was written.
            OutcomeUnknownError: the commit itself failed.
        """

        def begin(connection: sqlite3.Connection) -> sqlite3.Connection:
            connection.execute("BEGIN IMMEDIATE")
            return connection

        connection = self._retry_while_busy("write", begin)
        try:
            result = job(connection)
        except sqlite3.Error as error:
            self._roll_back(connection)
            self._close_if_broken(error)
            raise self._transport_error("write", error) from error
        except BaseException:
            self._roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Whether the commit frame reached the disk is unknown until a new connection reads the file.
            self.close()
            msg = f"the commit to {self.path} failed ({error}); it may or may not have been stored"
            raise OutcomeUnknownError(msg) from error
        if self._is_replaced():
            self.close()
            msg = f"the log file {self.path} was removed or replaced during a write; nothing was stored, try again"
            raise TransportError(msg)
        wal = _status(self._wal)
        if wal is None or (wal.st_dev, wal.st_ino) != self._wal_inode:
            # If this was the last connection, its close moves the records into the file.
            self.close()
            msg = f"{self._wal} was removed or replaced during a write; it may or may not have been stored"
            raise OutcomeUnknownError(msg)
        if wal.st_size >= self._checkpoint_at:
            self._truncate_wal(connection, wal.st_size)
        return result

    def data_version(self) -> int:
        """A number that changes whenever another connection has committed; raises TransportError."""
        return self._retry_while_busy(
            "read", lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0])
        )

    def partition(self, name: TopicPartition) -> PartitionRow:
        """One partition; raises UnknownTopicError, TransportError."""
        self._retry_while_busy("read", lambda _: None)  # if the file was replaced, what is known of it is wrong
        if name not in self._partitions:
            self._partitions = self.read(topic_table.partitions)
        if name not in self._partitions:
            raise unknown_topic(name.topic, name.partition, self._specs())
        return self._partitions[name]

    def partitions_of(self, topics: Sequence[str]) -> list[PartitionRow]:
        """All partitions of these topics; raises UnknownTopicError, TransportError."""
        self._partitions = self.read(topic_table.partitions)
        specs = self._specs()
        for topic in topics:
            if topic not in specs:
                raise unknown_topic(topic, None, specs)
        return [row for name, row in sorted(self._partitions.items()) if name.topic in topics]

    def is_current(self, row: PartitionRow) -> bool:
        """Whether a partition is one of the file that is open. Ask within a transaction: the file cannot change there."""
        return row.log_id == self._log_id

    def require_current(self, row: PartitionRow) -> None:
        """Raise TransportError unless `is_current`."""
        if not self.is_current(row):
            msg = f"the log file {self.path} was removed or replaced; nothing was changed, try again"
            raise TransportError(msg)

    def _specs(self) -> dict[str, TopicSpec]:
        return {name.topic: row.spec for name, row in self._partitions.items()}

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back. The next use opens a new one."""
        connection, self._connection = self._connection, None
        self._partitions = {}
        if connection is not None:
            # An error here (of the last checkpoint, for example) loses nothing: every commit is in the WAL.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _retry_while_busy(self, what: str, job: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + self._options.busy_timeout_ms / 1000
        while True:
            try:
                return job(self._connected())
            except sqlite3.Error as error:
                if not _is_busy(error):
                    self._close_if_broken(error)
                    raise self._transport_error(what, error) from error
                if time.monotonic() >= min(deadline, self._patience_ends):
                    raise self._transport_error(what, error) from error

    def _close_if_broken(self, error: sqlite3.Error) -> None:
        """SQLite may keep a state of the file that is no longer true: open it again next time. A full disk changes none."""
        if _code(error) != sqlite3.SQLITE_FULL:
            self.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_replaced():
            self._remove_if_truncated()
            self.close()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _is_replaced(self) -> bool:
        """Whether another file, none or a truncated one is at the path: a log has at least its first page."""
        found = _status(self.path)
        return found is None or (found.st_dev, found.st_ino) != self._inode or found.st_size < schema.PAGE_BYTES

    def _remove_if_truncated(self) -> None:
        """Remove a file that was truncated in place, so that a new one is created.

        SQLite could use it again only after every process has closed it, and an idle one does not. The open connection keeps the
        inode from being used by another file.
        """
        real = self._wal.with_name(self._wal.name.removesuffix("-wal"))
        aside = real.with_name(f"{real.name}.truncated-{os.getpid()}-{threading.get_ident()}")
        with contextlib.suppress(OSError):
            if inode_of(self.path) != self._inode:
                return
            for left in (self._wal, real.with_name(f"{real.name}-shm")):
                left.unlink(missing_ok=True)
            real.rename(aside)
            if inode_of(aside) != self._inode:  # another process was first, and this is its new file
                aside.rename(real)
                return
            aside.unlink()

    def _open(self) -> sqlite3.Connection:
        # As SQLite does: the WAL is beside the file itself, not beside a symlink to it.
        real = Path(os.path.realpath(self.path))
        schema.make_file(real)
        inode = inode_of(self.path)
        connection = sqlite3.connect(real, timeout=_TRY_SECONDS, isolation_level=None, cached_statements=64)
        try:
            log_id = schema.prepare(connection, self.path)
            self._configure(connection)
            missing = self._file.opened(log_id)
            if missing:
                self._create_missing(connection, missing)
            if inode_of(self.path) != inode:
                msg = f"the log file {self.path} was removed or replaced while it was opened; nothing was changed, try again"
                raise TransportError(msg)
        except BaseException:
            connection.close()
            raise
        self._inode = inode
        self._log_id = log_id
        self._wal = real.with_name(f"{real.name}-wal")
        self._wal_inode = inode_of(self._wal)
        return connection

    @staticmethod
    def _create_missing(connection: sqlite3.Connection, specs: Sequence[TopicSpec]) -> None:
        if topic_table.topics(connection).keys() >= {spec.name for spec in specs}:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            topic_table.create(connection, specs)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _configure(self, connection: sqlite3.Connection) -> None:
        full = self._options.synchronous == "full"
        connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        connection.execute(f"PRAGMA fullfsync = {int(full)}")  # macOS: without it a power cut can undo an fsync
        connection.execute(f"PRAGMA checkpoint_fullfsync = {int(full)}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see _truncate_wal
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute("PRAGMA cache_size = -8000")
        connection.execute("PRAGMA trusted_schema = OFF")

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()

    def _truncate_wal(self, connection: sqlite3.Connection, length: int) -> None:
        """Move a long WAL into the file.

        SQLite's automatic checkpoint is off: it runs beside other writers, and in every version before 3.51.3 it can lose a race
        with them that corrupts the file (sqlite.org/wal.html#walresetbug). TRUNCATE takes the writers' lock first.
        """
        # A reader that keeps the WAL in use must not cost every write a second: try again after as much again was written.
        self._checkpoint_at = length + _CHECKPOINT_BYTES
        try:
            connection.execute(f"PRAGMA busy_timeout = {int(_CHECKPOINT_SECONDS * 1000)}")
            if not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                self._checkpoint_at = _CHECKPOINT_BYTES
            connection.execute(f"PRAGMA busy_timeout = {int(_TRY_SECONDS * 1000)}")
        except sqlite3.Error:
            self.close()  # the transaction is durable; the next write tries the checkpoint again

    def _transport_error(self, what: str, error: sqlite3.Error) -> TransportError:
        if _is_busy(error) and time.monotonic() >= self._patience_ends:
            msg = f"cannot {what} {self.path}: another process keeps it locked, and this one closes it; nothing was changed"
        elif _is_busy(error):
            msg = (
                f"cannot {what} {self.path}: another process kept it locked for {self._options.busy_timeout_ms} ms "
                "(local.busy_timeout_ms); nothing was changed, try again"
            )
        elif _code(error) == sqlite3.SQLITE_NOTADB:
            msg = (
                f"{self.path} is not a SQLite database; expected a log of prela_stream: set local.path to another path"
            )
        elif _code(error) == sqlite3.SQLITE_FULL:
            msg = f"cannot {what} {self.path}: the disk is full or the file has reached its limit; nothing was changed"
        elif _code(error) == sqlite3.SQLITE_CORRUPT:
            msg = f"{self.path} is damaged ({error}); nothing was changed: move the file away to start a new log"
        else:
            msg = f"cannot {what} {self.path}: {error}; nothing was changed"
        return TransportError(msg)


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - called for every transaction
    except OSError:
        return None


def _code(error: sqlite3.Error) -> int:
    # Errors that the module raises itself have no code. The low byte is the primary code.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in _BUSY
