"""The tables of the log file, and how one is recognised, made and refused. Version 1.

`records` is clustered by (partition, offset): both are packed into its integer key, which SQLite reads in order and
appends to at the right edge of each partition. What a group knows of a partition is one row of `claims`: its committed
offset, the epoch of its writer, and the member that holds it.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition, TopicSpec

APPLICATION_ID: Final = 0x50524C41
"""`PRLA`, in the file's header: this SQLite file is one of ours."""
VERSION: Final = 1
OFFSET_BITS: Final = 40
"""A record's key is partition id << 40 | offset: 10^12 offsets a partition, 8 million partitions a file."""
PAGE_BYTES: Final = 8192
"""Measured: large Records are written 1.5 times as fast as with pages of 4,096, single small ones as fast."""

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
    # The value stands last: what precedes it is read without touching a large value's overflow pages.
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        timestamp_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        key BLOB,
        headers BLOB,
        value BLOB
    )""",
    "CREATE INDEX tombstones ON records (id) WHERE value IS NULL",
    # Of compacted partitions only: where the one kept Record of each key is.
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


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that exists: its id in the file and what its topic is like."""

    id: int
    name: TopicPartition
    spec: TopicSpec

    @property
    def first_key(self) -> int:
        """Key in `records` of its offset 0."""
        return self.id << OFFSET_BITS

    @property
    def end_key(self) -> int:
        """Key in `records` that no offset of it reaches."""
        return (self.id + 1) << OFFSET_BITS


def make_file(path: Path) -> None:
    """Make an empty file, 0600, and its folder, unless it is there; raises TransportError.

    A file that exists is not opened: closing any descriptor of a SQLite file drops this process's locks on it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        msg = f"cannot make the log file {path}: {error.strerror or error}; choose another path for the local transport"
        raise TransportError(msg) from error


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that this is a log of a known version, or make one of an empty file; raises TransportError, sqlite3.Error."""
    if not _is_empty(connection):
        _check(connection, path)
        return
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        msg = f"{path} cannot be shared between processes (journal mode {mode!r}, expected 'wal'); use a local disk"
        raise TransportError(msg)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_empty(connection):
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    _check(connection, path)


def _is_empty(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return not tables and not _pragma(connection, "application_id")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = _pragma(connection, "application_id")
    if application != APPLICATION_ID:
        msg = (
            f"{path} is a SQLite database, but not a log of prela_stream (application id {application:#x}, expected "
            f"{APPLICATION_ID:#x}); choose another path for the local transport"
        )
        raise TransportError(msg)
    version = _pragma(connection, "user_version")
    if version != VERSION:
        msg = (
            f"{path} is a log of version {version}, this release reads and writes version {VERSION}; use the release "
            "that made it, or choose another path for the local transport"
        )
        raise TransportError(msg)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
