"""Topics and partitions of a log file: making them and finding them by name."""

import sqlite3
from collections.abc import Sequence

from prela_stream.errors import TransportError, UnknownTopicError
from prela_stream.transport.base import TopicPartition, TopicSpec
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.schema import Place


def topics(connection: sqlite3.Connection) -> dict[str, TopicSpec]:
    """Every topic, by name."""
    rows = connection.execute(
        "SELECT name, partitions, cleanup, retention_ms, retention_bytes, max_record_bytes FROM topics ORDER BY name"
    )
    return {
        row[0]: TopicSpec(
            name=row[0],
            partitions=row[1],
            cleanup=row[2],
            retention_ms=row[3],
            retention_bytes=row[4],
            max_record_bytes=row[5],
        )
        for row in rows
    }


def create(connection: sqlite3.Connection, specs: Sequence[TopicSpec]) -> list[str]:
    """Make the topics that are missing and return their names. To be called in a transaction."""
    made = []
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
            made.append(spec.name)
    return made


def places(connection: sqlite3.Connection) -> dict[TopicPartition, Place]:
    """Every partition there is."""
    specs = topics(connection)
    found = {}
    for id_, topic, number in connection.execute("SELECT id, topic, number FROM partitions ORDER BY topic, number"):
        name = TopicPartition(topic, number)
        found[name] = Place(id=id_, name=name, spec=specs[topic])
    return found


def place(database: Database, name: TopicPartition) -> Place:
    """One partition; raises UnknownTopicError, TransportError."""
    if name not in database.places:
        database.places.update(database.read(places))
    if name not in database.places:
        specs = {known.topic: at.spec for known, at in database.places.items()}
        raise unknown(name.topic, name.partition, specs)
    return database.places[name]


def places_of(database: Database, names: Sequence[str]) -> list[Place]:
    """All partitions of these topics; raises UnknownTopicError, TransportError."""
    database.places.update(database.read(places))
    specs = {known.topic: at.spec for known, at in database.places.items()}
    for name in names:
        if name not in specs:
            raise unknown(name, None, specs)
    return [at for known, at in sorted(database.places.items()) if known.topic in names]


def unknown(topic: str, partition: int | None, known: dict[str, TopicSpec]) -> UnknownTopicError:
    """The error that names what there is instead."""
    if topic in known and partition is not None:
        msg = f"topic {topic} has partitions 0 to {known[topic].partitions - 1}, there is no partition {partition}"
    else:
        there = ", ".join(sorted(known)) or "none"
        msg = f"there is no topic {topic!r} (there are: {there}); make it with `prela-stream topics create`"
    return UnknownTopicError(msg)
