"""Membership of a consumer group, in the log file: heartbeats, partition leases and committed offsets.

A member is alive while its heartbeat is younger than its session timeout; anyone of the group who notices removes a dead
one and frees its partitions. Each member works out the fair shares by itself, gives up what is too much and takes what is
free, in one write transaction, so that no partition ever has two holders. A lease's generation grows with each change of
hands: a holder of an older one is fenced.
"""

import sqlite3
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from prela_stream.errors import FencedError
from prela_stream.transport.base import Committed, TopicPartition
from prela_stream.transport.local.balance import balance
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.schema import Place


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that this member holds."""

    generation: int
    """Which change of hands gave it to us; never the same twice for a group and partition."""
    committed: int | None
    """The group's committed offset when the lease was looked at."""


class Member:
    """One member of one group. Used by the consumer's database thread alone."""

    def __init__(self, group: str, places: Sequence[Place], session_ms: int) -> None:
        self.group = group
        self.id = uuid.uuid4().hex
        self._topics = sorted({at.name.topic for at in places})
        self._partitions = {at.id: at.name.topic for at in places}
        self._session_ms = session_ms
        self.look_every_ms = max(session_ms // 6, 1)
        """How often `tend` must be called when nothing seems to have changed: time alone can make a member dead."""
        self.has_its_share = False
        """Whether we hold all that is to be ours, as of the last `tend`."""

    def tend(self, database: Database, now_ms: int) -> dict[int, Lease]:
        """Keep up membership, give and take partitions, and return the leases now held, by partition id."""
        if database.read(lambda connection: self._is_settled(connection, now_ms)):
            return database.read(self._held)

        def settle(connection: sqlite3.Connection) -> dict[int, Lease]:
            self._settle(connection, now_ms)
            return self._held(connection)

        return database.write(settle)

    def beat(self, database: Database, now_ms: int) -> None:
        """Renew the heartbeat, unless this member was removed: that one comes back with the next `tend`."""
        sql = "UPDATE members SET heartbeat_ms = ? WHERE group_name = ? AND member = ?"
        database.write(lambda connection: connection.execute(sql, (now_ms, self.group, self.id)))

    def leave(self, database: Database) -> None:
        """Give everything back."""
        database.write(lambda connection: self._remove(connection, [self.id]))

    def commit(self, database: Database, offsets: Sequence[tuple[Place, int, Committed]]) -> None:
        """Commit offsets (with the generation under which we hold each), or none; raises FencedError, TransportError."""

        def store(connection: sqlite3.Connection) -> None:
            for at, generation, committed in offsets:
                done = connection.execute(
                    "UPDATE claims SET committed = ?, metadata = ? "
                    "WHERE group_name = ? AND partition_id = ? AND member = ? AND generation = ?",
                    (committed.offset, committed.metadata, self.group, at.id, self.id, generation),
                )
                if not done.rowcount:
                    raise not_ours(at.name, self.group)

        database.write(store)

    def _is_settled(self, connection: sqlite3.Connection, now_ms: int) -> bool:
        members = self._members(connection)
        mine = members.get(self.id)
        if mine is None or now_ms - mine[1] >= self._session_ms / 3 or _dead(members, now_ms):
            return False
        give, take = self._moves(connection, members)
        return not give and not take

    def _settle(self, connection: sqlite3.Connection, now_ms: int) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
            (self.group, self.id, msgspec.json.encode(self._topics).decode(), now_ms, self._session_ms),
        )
        self._remove(connection, _dead(self._members(connection), now_ms))
        give, take = self._moves(connection, self._members(connection))
        connection.executemany(
            "UPDATE claims SET member = NULL WHERE group_name = ? AND partition_id = ?",
            [(self.group, partition) for partition in give],
        )
        connection.executemany(
            "INSERT INTO claims (group_name, partition_id, member, generation) VALUES (?, ?, ?, 1) "
            "ON CONFLICT DO UPDATE SET member = excluded.member, generation = generation + 1",
            [(self.group, partition, self.id) for partition in take],
        )

    def _members(self, connection: sqlite3.Connection) -> dict[str, tuple[frozenset[str], int, int]]:
        """Topics, last heartbeat and session timeout of each member."""
        rows = connection.execute(
            "SELECT member, topics, heartbeat_ms, session_ms FROM members WHERE group_name = ?", (self.group,)
        )
        return {row[0]: (frozenset(msgspec.json.decode(row[1], type=list[str])), row[2], row[3]) for row in rows}

    def _moves(
        self, connection: sqlite3.Connection, members: Mapping[str, tuple[frozenset[str], int, int]]
    ) -> tuple[list[int], list[int]]:
        """Partitions that we should give up, and free ones that we should take."""
        rows = connection.execute(
            "SELECT partition_id, member FROM claims WHERE group_name = ? AND member IS NOT NULL", (self.group,)
        )
        owners: dict[int, str] = dict(rows.fetchall())
        topics = {name: member[0] for name, member in members.items()}
        wanted = balance(topics, self._partitions, owners)
        give = [id_ for id_, owner in owners.items() if owner == self.id and wanted.get(id_) != self.id]
        take = [id_ for id_, owner in wanted.items() if owner == self.id and owners.get(id_) is None]
        # What others are still to give up will be ours, but is not yet.
        self.has_its_share = all(
            owners.get(id_) in (self.id, None) for id_, owner in wanted.items() if owner == self.id
        )
        return give, take

    def _remove(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        gone = [(self.group, name) for name in names]
        connection.executemany("UPDATE claims SET member = NULL WHERE group_name = ? AND member = ?", gone)
        connection.executemany("DELETE FROM members WHERE group_name = ? AND member = ?", gone)

    def _held(self, connection: sqlite3.Connection) -> dict[int, Lease]:
        rows = connection.execute(
            "SELECT partition_id, generation, committed FROM claims WHERE group_name = ? AND member = ?",
            (self.group, self.id),
        )
        return {row[0]: Lease(generation=row[1], committed=row[2]) for row in rows}


def _dead(members: Mapping[str, tuple[frozenset[str], int, int]], now_ms: int) -> list[str]:
    # A heartbeat in the future was written before the wall clock was set back. Its writer, if it lives, joins again.
    return [name for name, (_, heartbeat_ms, session_ms) in members.items() if abs(now_ms - heartbeat_ms) > session_ms]


def committed(connection: sqlite3.Connection, group: str, at: Place) -> Committed | None:
    """What the group has committed for a partition."""
    row = connection.execute(
        "SELECT committed, metadata FROM claims WHERE group_name = ? AND partition_id = ?", (group, at.id)
    ).fetchone()
    return None if row is None or row[0] is None else Committed(offset=row[0], metadata=row[1])


def not_ours(name: TopicPartition, group: str | None) -> FencedError:
    """The error for a partition that this consumer does not hold, or not any more."""
    msg = f"{name.topic}/{name.partition} does not belong to this member of group {group!r} (any more); nothing was changed"
    return FencedError(msg)
