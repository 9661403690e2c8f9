"""Deleting what is too old or too much, a slice at a time, by whoever writes.

Offsets are numbered by the partition's row and never by what is still there, so nothing here can make one be used twice.
"""

import sqlite3
import threading
import time

from prela_stream.transport.base import TopicPartition
from prela_stream.transport.local import catalog
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.schema import Place

SLICE_RECORDS = 4_096
SLICE_BYTES = 32 << 20
INTERVAL_SECONDS = 1.0


class Sweeper:
    """Says when a slice is due, and deletes it. A slice grows with what was written, so that it keeps up with any writer."""

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._interval = interval_seconds
        self._due = time.monotonic()
        self._lock = threading.Lock()
        self._written_records = 0
        self._written_bytes = 0

    def wrote(self, records: int, size: int) -> bool:
        """Count what was written; True if `sweep` should be run now."""
        with self._lock:
            self._written_records += records
            self._written_bytes += size
            now = time.monotonic()
            if now < self._due:
                return False
            self._due = now + self._interval
            return True

    def sweep(self, database: Database, now_ms: int) -> None:
        """Delete one slice of what may go, over all partitions; raises TransportError and then has deleted nothing."""
        with self._lock:
            records = SLICE_RECORDS + 2 * self._written_records
            size = SLICE_BYTES + 2 * self._written_bytes
            self._written_records = self._written_bytes = 0
        due = database.read(lambda connection: overdue(connection, now_ms))
        if due:
            database.write(lambda connection: trim(connection, due, now_ms, records, size))


def overdue(connection: sqlite3.Connection, now_ms: int) -> dict[TopicPartition, Place]:
    """The partitions that hold something that may go."""
    return {name: at for name, at in catalog.places(connection).items() if _doomed(connection, at, now_ms, 1, 1)[0]}


def trim(
    connection: sqlite3.Connection, places: dict[TopicPartition, Place], now_ms: int, max_records: int, max_bytes: int
) -> int:
    """Delete at most so much of these and return how many Records went."""
    gone = 0
    freed = 0
    for at in places.values():
        ids, size = _doomed(connection, at, now_ms, max_records - gone, max_bytes - freed)
        if not ids:
            continue
        keys = [(id_,) for id_ in ids]
        if at.spec.cleanup == "compact":
            connection.executemany(
                "DELETE FROM latest WHERE (partition_id, key) = (SELECT ?, key FROM records WHERE id = ?)",
                [(at.id, id_) for id_ in ids],
            )
        connection.executemany("DELETE FROM records WHERE id = ?", keys)
        connection.execute("UPDATE partitions SET bytes = bytes - ? WHERE id = ?", (size, at.id))
        gone += len(ids)
        freed += size
    return gone


def _doomed(
    connection: sqlite3.Connection, at: Place, now_ms: int, max_records: int, max_bytes: int
) -> tuple[list[int], int]:
    """Keys and total size of the oldest Records that may go, at most so many and hardly more bytes than that."""
    oldest = None if at.spec.retention_ms is None else now_ms - at.spec.retention_ms
    excess = 0
    if at.spec.cleanup == "delete" and at.spec.retention_bytes is not None:
        held = connection.execute("SELECT bytes FROM partitions WHERE id = ?", (at.id,)).fetchone()[0]
        excess = held - at.spec.retention_bytes
    if (oldest is None and excess <= 0) or max_records < 1:
        return [], 0
    ids: list[int] = []
    total = 0
    for id_, timestamp_ms, size in _oldest(connection, at, max_records):
        if total >= max_bytes or (total >= excess and (oldest is None or timestamp_ms >= oldest)):
            break
        ids.append(id_)
        total += size
    return ids, total


def _oldest(connection: sqlite3.Connection, at: Place, limit: int) -> sqlite3.Cursor:
    """The first Records that age or size may take: all of a `delete` topic, the tombstones of a `compact` one."""
    if at.spec.cleanup == "delete":
        sql = "SELECT id, timestamp_ms, size FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    else:
        sql = (
            "SELECT id, timestamp_ms, size FROM records INDEXED BY tombstones "
            "WHERE value IS NULL AND id >= ? AND id < ? ORDER BY id LIMIT ?"
        )
    return connection.execute(sql, (at.first_key, at.end_key, limit))
