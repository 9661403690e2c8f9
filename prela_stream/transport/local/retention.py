"""Deletes records that are too old or too many, a slice at a time, in the processes that write.

The next offset of a partition is stored in its row and does not depend on its records, so no offset is ever used twice.
"""

import sqlite3
import threading
import time

from prela_stream.transport.base import TopicPartition
from prela_stream.transport.local import topic_table
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.schema import PartitionRow

SLICE_RECORDS = 4_096
SLICE_BYTES = 32 << 20
INTERVAL_SECONDS = 1.0


class Sweeper:
    """Deletes a slice when one is due. A slice grows with what was written, so retention keeps up with any writer."""

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._interval = interval_seconds
        self._due = time.monotonic()
        self._lock = threading.Lock()
        self._written_records = 0
        self._written_bytes = 0

    def wrote(self, records: int, size: int) -> bool:
        """Count what was written; True if `sweep` is due."""
        with self._lock:
            self._written_records += records
            self._written_bytes += size
            now = time.monotonic()
            if now < self._due:
                return False
            self._due = now + self._interval
            return True

    def sweep(self, database: Database, now_ms: int) -> None:
        """Delete one slice of expired records of all partitions. Raises TransportError: nothing was deleted."""
        with self._lock:
            records = SLICE_RECORDS + 2 * self._written_records
            size = SLICE_BYTES + 2 * self._written_bytes
            self._written_records = self._written_bytes = 0
        due = database.read(lambda connection: overdue(connection, now_ms))
        if due:
            database.write(lambda connection: trim(connection, due, now_ms, records, size))


def overdue(connection: sqlite3.Connection, now_ms: int) -> dict[TopicPartition, PartitionRow]:
    """The partitions that have expired records."""
    return {
        name: row
        for name, row in topic_table.partitions(connection).items()
        if _expired(connection, row, now_ms, 1, 1)[0]
    }


def trim(
    connection: sqlite3.Connection,
    partitions: dict[TopicPartition, PartitionRow],
    now_ms: int,
    max_records: int,
    max_bytes: int,
) -> int:
    """Delete at most so many expired records and bytes; return the number of records."""
    gone = 0
    freed = 0
    for row in partitions.values():
        ids, size = _expired(connection, row, now_ms, max_records - gone, max_bytes - freed)
        if not ids:
            continue
        keys = [(id_,) for id_ in ids]
        if row.spec.cleanup == "compact":
            connection.executemany(
                "DELETE FROM latest WHERE (partition_id, key) = (SELECT ?, key FROM records WHERE id = ?)",
                [(row.id, id_) for id_ in ids],
            )
        connection.executemany("DELETE FROM records WHERE id = ?", keys)
        connection.execute("UPDATE partitions SET bytes = bytes - ? WHERE id = ?", (size, row.id))
        gone += len(ids)
        freed += size
    return gone


def _expired(
    connection: sqlite3.Connection, row: PartitionRow, now_ms: int, max_records: int, max_bytes: int
) -> tuple[list[int], int]:
    """Keys and total size of the oldest expired records: at most `max_records`, and at most one record more than `max_bytes`."""
    oldest = None if row.spec.retention_ms is None else now_ms - row.spec.retention_ms
    excess = 0
    if row.spec.cleanup == "delete" and row.spec.retention_bytes is not None:
        held = connection.execute("SELECT bytes FROM partitions WHERE id = ?", (row.id,)).fetchone()[0]
        excess = held - row.spec.retention_bytes
    if (oldest is None and excess <= 0) or max_records < 1:
        return [], 0
    ids: list[int] = []
    total = 0
    for id_, timestamp_ms, size in _oldest(connection, row, max_records):
        if total >= max_bytes or (total >= excess and (oldest is None or timestamp_ms >= oldest)):
            break
        ids.append(id_)
        total += size
    return ids, total


def _oldest(connection: sqlite3.Connection, row: PartitionRow, limit: int) -> sqlite3.Cursor:
    """The first records that retention may delete: any of a `delete` topic, the tombstones of a `compact` one."""
    if row.spec.cleanup == "delete":
        sql = "SELECT id, timestamp_ms, size FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    else:
        sql = (
            "SELECT id, timestamp_ms, size FROM records INDEXED BY tombstones "
            "WHERE value IS NULL AND id >= ? AND id < ? ORDER BY id LIMIT ?"
        )
    return connection.execute(sql, (row.first_key, row.end_key, limit))
