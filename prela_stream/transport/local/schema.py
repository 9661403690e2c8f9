"""The tables of the log file, and how a file is recognised, created and refused. Version 1.

The key of `records` packs partition and offset into one integer. SQLite stores the table in this order, so each partition
grows at its right edge. One row of `claims` has everything about a group and a partition: the committed offset, the epoch of
the writer, and the member to which it is assigned.
"""

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition, TopicSpec

APPLICATION_ID: Final = 0x50524C41
"""`PRLA`, in the file's header: this SQLite file is a log of prela_stream."""
VERSION: Final = 1
OFFSET_BITS: Final = 40
"""A record's key is partition id << 40 | offset: 10^12 offsets per partition, 8 million partitions per file."""
PAGE_BYTES: Final = 8192
"""Measured: large records are written 1.5 times as fast as with pages of 4,096, single small ones as fast."""

TABLES: Final = (
    """CREATE TABLE topics (
        name TEXT PRIMARY KEY,
        partitions INTEGER NOT NULL,
        cleanup TEXT NOT NULL,
        retention_ms INTEGER,
        retention_bytes INTEGER,
        max_record_bytes INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE partitions (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        number INTEGER NOT NULL,
        next_offset INTEGER NOT NULL DEFAULT 0,
        last_ms INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, number)
    )""",
    # The value is the last column, so the columns before it are read without the overflow pages of a large value.
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        timestamp_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        key BLOB,
        headers BLOB,
        value BLOB
    )""",
    "CREATE INDEX tombstones ON records (id) WHERE value IS NULL",
    # Of compacted partitions only: the offset of the one retained record of each key.
    """CREATE TABLE latest (
        partition_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        offset INTEGER NOT NULL,
        PRIMARY KEY (partition_id, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE members (
        group_name TEXT NOT NULL,
        member TEXT NOT NULL,
        topics TEXT NOT NULL,
        heartbeat_ms INTEGER NOT NULL,
        session_ms INTEGER NOT NULL,
        PRIMARY KEY (group_name, member)
    ) WITHOUT ROWID""",
    """CREATE TABLE claims (
        group_name TEXT NOT NULL,
        partition_id INTEGER NOT NULL,
        committed INTEGER,
        metadata TEXT NOT NULL DEFAULT '',
        epoch INTEGER NOT NULL DEFAULT 0,
        member TEXT,
        generation INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (group_name, partition_id)
    ) WITHOUT ROWID""",
)
_LOG_TABLE: Final = "CREATE TABLE IF NOT EXISTS log (id TEXT PRIMARY KEY) WITHOUT ROWID"
"""One row. Its id tells a file from its successor at the same path. Files of early releases get it when they are first opened."""


class PartitionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of a log file."""

    id: int
    """Its id in the file."""
    name: TopicPartition
    spec: TopicSpec
    log_id: str
    """The file: ids of one file mean nothing in another."""

    @property
    def first_key(self) -> int:
        """Key in `records` of its offset 0."""
        return self.id << OFFSET_BITS

    @property
    def end_key(self) -> int:
        """The first key in `records` after all its offsets."""
        return (self.id + 1) << OFFSET_BITS


def make_file(path: Path) -> None:
    """Create an empty file, mode 0600, and its folder, unless they exist; raises TransportError.

    An existing file is not opened: closing any descriptor of a SQLite file drops this process's locks on it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        msg = f"cannot create the log file {path}: {error.strerror or error}; correct that, or set local.path to another path"
        raise TransportError(msg) from error


def prepare(connection: sqlite3.Connection, path: Path) -> str:
    """Check that this is a log of a known version, or create one in an empty file; return its id.

    Raises TransportError, sqlite3.Error.
    """
    if _is_empty(connection):
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            msg = f"{path} cannot be shared between processes (journal mode {mode!r}, expected 'wal'); use a local disk"
            raise TransportError(msg)
        _in_transaction(connection, _create_tables)
    _check(connection, path)
    return _log_id(connection)


def _create_tables(connection: sqlite3.Connection) -> None:
    if _is_empty(connection):  # unless another process was faster
        for table in TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        _create_log_id(connection)


def _create_log_id(connection: sqlite3.Connection) -> None:
    connection.execute(_LOG_TABLE)
    connection.execute("INSERT INTO log SELECT ? WHERE NOT EXISTS (SELECT * FROM log)", (uuid.uuid4().hex,))


def _log_id(connection: sqlite3.Connection) -> str:
    if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'log'").fetchone()[0]:
        _in_transaction(connection, _create_log_id)
    return str(connection.execute("SELECT id FROM log").fetchone()[0])


def _in_transaction(connection: sqlite3.Connection, job: Callable[[sqlite3.Connection], None]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        job(connection)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_empty(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return not tables and not _pragma(connection, "application_id")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = _pragma(connection, "application_id")
    if application != APPLICATION_ID:
        msg = (
            f"{path} is a SQLite database, but not a log of prela_stream (application id {application:#x}, expected "
            f"{APPLICATION_ID:#x}); set local.path to another path"
        )
        raise TransportError(msg)
    version = _pragma(connection, "user_version")
    if version != VERSION:
        msg = (
            f"{path} is a log of version {version}, this release reads and writes version {VERSION}; use the release "
            "that created it, or set local.path to another path"
        )
        raise TransportError(msg)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
