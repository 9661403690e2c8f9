"""The log itself, inside a transaction of the caller: appending, reading, finding an offset by time."""

import sqlite3
from collections.abc import Sequence

import msgspec

from prela_stream.errors import TooLargeError, TransportError
from prela_stream.transport.base import LogRecord, Record
from prela_stream.transport.local.schema import OFFSET_BITS, Place

Headers = tuple[tuple[str, bytes], ...]
_OFFSET_MASK = (1 << OFFSET_BITS) - 1
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(Headers).decode


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a partition."""

    records: list[LogRecord]
    size: int
    """Bytes of keys, headers and values."""
    next_offset: int
    """Where to go on: behind the last of `records`, or if nothing was left out, the end of the partition."""


def check(at: Place, records: Sequence[Record]) -> None:
    """Raise TransportError (TooLargeError) if the topic cannot take one of these."""
    limit = at.spec.max_record_bytes
    for record in records:
        if record.value is not None and len(record.value) > limit:
            msg = (
                f"a Record of {len(record.value):,} bytes is too large for topic {at.name.topic}, which takes values of at "
                f"most {limit:,} bytes (max_record_bytes); nothing was written"
            )
            raise TooLargeError(msg)
        if record.key is None and at.spec.cleanup == "compact":
            msg = f"a Record without a key cannot go to topic {at.name.topic}, which is compacted by key; nothing was written"
            raise TransportError(msg)


def append(connection: sqlite3.Connection, at: Place, records: Sequence[Record], now_ms: int) -> int:
    """Append to one partition, in order, and return the offset of the last."""
    start: int
    last_ms: int
    start, last_ms = connection.execute("SELECT next_offset, last_ms FROM partitions WHERE id = ?", (at.id,)).fetchone()
    stamp = max(now_ms, last_ms)
    rows = []
    total = 0
    for id_, record in enumerate(records, at.first_key + start):
        headers = _encode_headers(record.headers) if record.headers else None
        size = len(record.value or b"") + len(record.key or b"") + len(headers or b"")
        total += size
        rows.append((id_, stamp, size, record.key, headers, record.value))
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
    if at.spec.cleanup == "compact":
        total -= _supersede(connection, at, records, start)
    end = start + len(rows)
    connection.execute(
        "UPDATE partitions SET next_offset = ?, last_ms = ?, bytes = bytes + ? WHERE id = ?", (end, stamp, total, at.id)
    )
    return end - 1


def _supersede(connection: sqlite3.Connection, at: Place, records: Sequence[Record], start: int) -> int:
    """Delete what had these keys before, and return its size. So a compacted partition never holds two of a key."""
    freed = 0
    for offset, record in enumerate(records, start):
        key = (at.id, record.key)
        old = connection.execute("SELECT offset FROM latest WHERE partition_id = ? AND key = ?", key).fetchone()
        if old is not None:
            id_ = (at.first_key + old[0],)
            freed += connection.execute("SELECT size FROM records WHERE id = ?", id_).fetchone()[0]
            connection.execute("DELETE FROM records WHERE id = ?", id_)
        connection.execute("INSERT OR REPLACE INTO latest VALUES (?, ?, ?)", (*key, offset))
    return freed


def read(
    connection: sqlite3.Connection, at: Place, offset: int, *, max_records: int, max_bytes: int, oversize: bool
) -> Slice:
    """Records from `offset` on; with `oversize`, the first of them even if it is larger than `max_bytes`."""
    end = end_offset(connection, at)
    if offset >= end or max_records < 1 or (max_bytes < 1 and not oversize):
        return Slice(records=[], size=0, next_offset=offset)
    found: list[LogRecord] = []
    total = 0
    topic, partition = at.name.topic, at.name.partition
    rows = connection.execute(
        "SELECT id, timestamp_ms, size, key, headers, value FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (at.first_key + max(offset, 0), at.end_key, max_records),
    )
    for id_, timestamp_ms, size, key, headers, value in rows:
        if total + size > max_bytes and (found or not oversize):
            break
        total += size
        stored = LogRecord(
            topic=topic,
            partition=partition,
            offset=id_ & _OFFSET_MASK,
            timestamp_ms=timestamp_ms,
            value=value,
            key=key,
            headers=_decode_headers(headers) if headers else (),
        )
        found.append(stored)
    else:
        if len(found) < max_records:
            return Slice(records=found, size=total, next_offset=end)
    rows.close()
    return Slice(records=found, size=total, next_offset=found[-1].offset + 1 if found else offset)


def end_offset(connection: sqlite3.Connection, at: Place) -> int:
    """The offset that the next Record will have."""
    return int(connection.execute("SELECT next_offset FROM partitions WHERE id = ?", (at.id,)).fetchone()[0])


def beginning_offset(connection: sqlite3.Connection, at: Place) -> int:
    """Offset of the first Record that is kept, or the end."""
    first = _first(connection, at, at.first_key)
    return end_offset(connection, at) if first is None else first[0]


def offset_at(connection: sqlite3.Connection, at: Place, timestamp_ms: int) -> int:
    """Offset of the first Record with log-append time >= `timestamp_ms`, or the end: a bisection, for time never goes back."""
    low, high = 0, end_offset(connection, at)
    while low < high:
        middle = (low + high) // 2
        first = _first(connection, at, at.first_key + middle)
        if first is None or first[1] >= timestamp_ms:
            high = middle
        else:
            low = first[0] + 1
    first = _first(connection, at, at.first_key + low)
    return end_offset(connection, at) if first is None else first[0]


def _first(connection: sqlite3.Connection, at: Place, key: int) -> tuple[int, int] | None:
    """Offset and time of the first Record at or after `key`."""
    row = connection.execute(
        "SELECT id, timestamp_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (key, at.end_key)
    ).fetchone()
    return None if row is None else (row[0] & _OFFSET_MASK, row[1])
