"""The topics and partitions of a log file: creating and listing them, inside a transaction of the caller."""

import sqlite3
from collections.abc import Iterable

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition, TopicSpec
from prela_stream.transport.local.schema import PartitionRow


def topics(connection: sqlite3.Connection) -> dict[str, TopicSpec]:
    """Every topic, by name."""
    rows = connection.execute(
        "SELECT name, partitions, cleanup, retention_ms, retention_bytes, max_record_bytes FROM topics ORDER BY name"
    )
    return {
        name: TopicSpec(
            name=name,
            partitions=partitions,
            cleanup=cleanup,
            retention_ms=retention_ms,
            retention_bytes=retention_bytes,
            max_record_bytes=max_record_bytes,
        )
        for name, partitions, cleanup, retention_ms, retention_bytes, max_record_bytes in rows
    }


def create(connection: sqlite3.Connection, specs: Iterable[TopicSpec]) -> list[str]:
    """Create the topics that are missing and return their names."""
    created = []
    for spec in specs:
        if spec.partitions < 1:
            msg = f"topic {spec.name}: expected at least 1 partition, got {spec.partitions}"
            raise TransportError(msg)
        row = (
            spec.name,
            spec.partitions,
            spec.cleanup,
            spec.retention_ms,
            spec.retention_bytes,
            spec.max_record_bytes,
        )
        added = connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?, ?, ?, ?)", row)
        if added.rowcount:
            numbers = [(spec.name, number) for number in range(spec.partitions)]
            connection.executemany("INSERT INTO partitions (topic, number) VALUES (?, ?)", numbers)
            created.append(spec.name)
    return created


def partitions(connection: sqlite3.Connection) -> dict[TopicPartition, PartitionRow]:
    """Every partition."""
    specs = topics(connection)
    log_id = str(connection.execute("SELECT id FROM log").fetchone()[0])
    found = {}
    for id_, topic, number in connection.execute("SELECT id, topic, number FROM partitions ORDER BY topic, number"):
        name = TopicPartition(topic, number)
        found[name] = PartitionRow(id=id_, name=name, spec=specs[topic], log_id=log_id)
    return found
