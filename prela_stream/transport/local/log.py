"""Appending, reading and finding an offset by time, inside a transaction of the caller."""

import sqlite3
from collections.abc import Sequence

import msgspec

from prela_stream.transport.base import LogRecord, Record
from prela_stream.transport.local.schema import OFFSET_BITS, PartitionRow

Headers = tuple[tuple[str, bytes], ...]
_OFFSET_MASK = (1 << OFFSET_BITS) - 1
CLOCK_NOISE_MS = 1_000
"""A clock that goes back by less than this does not make the times in the log go back."""
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one read of a partition."""

    records: list[LogRecord]
    size: int
    """Bytes of keys, headers and values."""
    next_offset: int
    """Where to continue: after the last of `records`, or at the end of the partition if all its records were read."""


def append(connection: sqlite3.Connection, row: PartitionRow, records: Sequence[Record], now_ms: int) -> int:
    """Append to one partition, in order, and return the offset of the last."""
    start: int
    last_ms: int
    start, last_ms = connection.execute(
        "SELECT next_offset, last_ms FROM partitions WHERE id = ?", (row.id,)
    ).fetchone()
    # a clock that was set back stamps records with its new time, as a Kafka broker does; workers handle that
    stamp = now_ms if last_ms - now_ms > CLOCK_NOISE_MS else max(now_ms, last_ms)
    rows = []
    total = 0
    for id_, record in enumerate(records, row.first_key + start):
        headers = _encode_headers(record.headers) if record.headers else None
        size = len(record.value or b"") + len(record.key or b"") + len(headers or b"")
        total += size
        rows.append((id_, stamp, size, record.key, headers, record.value))
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
    if row.spec.cleanup == "compact":
        total -= _supersede(connection, row, records, start)
    end = start + len(rows)
    connection.execute(
        "UPDATE partitions SET next_offset = ?, last_ms = ?, bytes = bytes + ? WHERE id = ?",
        (end, stamp, total, row.id),
    )
    return end - 1


def _supersede(connection: sqlite3.Connection, row: PartitionRow, records: Sequence[Record], start: int) -> int:
    """Delete the previous records of these keys and return their size, so a compacted partition has one record per key."""
    freed = 0
    for offset, record in enumerate(records, start):
        key = (row.id, record.key)
        old = connection.execute("SELECT offset FROM latest WHERE partition_id = ? AND key = ?", key).fetchone()
        if old is not None:
            id_ = (row.first_key + old[0],)
            freed += connection.execute("SELECT size FROM records WHERE id = ?", id_).fetchone()[0]
            connection.execute("DELETE FROM records WHERE id = ?", id_)
        connection.execute("INSERT OR REPLACE INTO latest VALUES (?, ?, ?)", (*key, offset))
    return freed


def read(
    connection: sqlite3.Connection, row: PartitionRow, offset: int, *, max_records: int, max_bytes: int, oversize: bool
) -> Slice:
    """Records from `offset` on. With `oversize`, the first is returned even if it is larger than `max_bytes`."""
    end = end_offset(connection, row)
    if offset >= end or max_records < 1 or (max_bytes < 1 and not oversize):
        return Slice(records=[], size=0, next_offset=offset)
    found: list[LogRecord] = []
    total = 0
    topic, partition = row.name.topic, row.name.partition
    rows = connection.execute(
        "SELECT id, timestamp_ms, size, key, headers, value FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (row.first_key + max(offset, 0), row.end_key, max_records),
    )
    for id_, timestamp_ms, size, key, headers, value in rows:
        if total + size > max_bytes and (found or not oversize):
            break
        total += size
        record = LogRecord(
            topic=topic,
            partition=partition,
            offset=id_ & _OFFSET_MASK,
            timestamp_ms=timestamp_ms,
            value=value,
            key=key,
            headers=_decode_headers(headers) if headers else (),
        )
        found.append(record)
    else:
        if len(found) < max_records:
            return Slice(records=found, size=total, next_offset=end)
    rows.close()
    return Slice(records=found, size=total, next_offset=found[-1].offset + 1 if found else offset)


def end_offset(connection: sqlite3.Connection, row: PartitionRow) -> int:
    """The offset of the next record to be appended."""
    return int(connection.execute("SELECT next_offset FROM partitions WHERE id = ?", (row.id,)).fetchone()[0])


def beginning_offset(connection: sqlite3.Connection, row: PartitionRow) -> int:
    """Offset of the first retained record, or the end."""
    first = _first(connection, row, row.first_key)
    return end_offset(connection, row) if first is None else first[0]


def offset_at(connection: sqlite3.Connection, row: PartitionRow, timestamp_ms: int) -> int:
    """Offset of the first record with log-append time >= `timestamp_ms`, or the end.

    It is found by bisection, so it is an estimate if the clock was set back.
    """
    low, high = 0, end_offset(connection, row)
    while low < high:
        middle = (low + high) // 2
        first = _first(connection, row, row.first_key + middle)
        if first is None or first[1] >= timestamp_ms:
            high = middle
        else:
            low = first[0] + 1
    first = _first(connection, row, row.first_key + low)
    return end_offset(connection, row) if first is None else first[0]


def _first(connection: sqlite3.Connection, row: PartitionRow, key: int) -> tuple[int, int] | None:
    """Offset and time of the first record at or after `key`."""
    found = connection.execute(
        "SELECT id, timestamp_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (key, row.end_key)
    ).fetchone()
    return None if found is None else (found[0] & _OFFSET_MASK, found[1])
