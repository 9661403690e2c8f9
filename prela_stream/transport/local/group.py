"""Membership of a consumer group, in the log file: heartbeats, leases of partitions and committed offsets.

A member is alive while its heartbeat is younger than its session timeout. Any member that finds a dead one removes it and
frees its partitions. Each member computes the fair shares, releases what it has too much and takes what is free, in one
write transaction, so a partition never has two holders. The generation of a lease grows when its partition changes its
holder: a holder of an older generation is fenced.
"""

import sqlite3
import uuid
from collections.abc import Mapping, Sequence

import msgspec

from prela_stream.transport.base import Committed
from prela_stream.transport.local.balance import balance
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.schema import PartitionRow
from prela_stream.transport.refusals import not_assigned


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that is assigned to this member."""

    generation: int
    """Counts the holders of the partition; a number is never used twice for a group and partition."""
    committed: int | None
    """The group's committed offset when the lease was read."""


class _MemberRow(msgspec.Struct, frozen=True):
    """A member of the group, as the file has it."""

    topics: frozenset[str]
    heartbeat_ms: int
    session_ms: int


class Member:
    """One member of one group. Used by the consumer's database thread only."""

    def __init__(self, group: str, topics: Sequence[str], session_ms: int) -> None:
        self.group = group
        self.id = uuid.uuid4().hex
        self._topics = sorted(topics)
        self._partitions: dict[int, str] = {}
        self._session_ms = session_ms
        self.check_every_ms = max(session_ms // 6, 1)
        """How often `update` is due if the file has not changed: the passing of time makes a member dead."""
        self.has_full_share = False
        """Whether everything that should be assigned to this member is, as of the last `update`."""

    def use(self, rows: Sequence[PartitionRow]) -> None:
        """The partitions of the topics, as ids of the log file in use."""
        self._partitions = {row.id: row.name.topic for row in rows}

    def update(self, database: Database, now_ms: int) -> dict[int, Lease]:
        """Keep up the membership, release and take partitions; return the leases of this member by partition id."""
        if database.read(lambda connection: self._is_balanced(connection, now_ms)):
            return database.read(self._leases)

        def rebalance(connection: sqlite3.Connection) -> dict[int, Lease]:
            self._rebalance(connection, now_ms)
            return self._leases(connection)

        return database.write(rebalance)

    def heartbeat(self, database: Database, now_ms: int) -> None:
        """Renew the heartbeat. A member that was removed stays removed until its next `update`."""
        sql = "UPDATE members SET heartbeat_ms = ? WHERE group_name = ? AND member = ?"
        database.write(lambda connection: connection.execute(sql, (now_ms, self.group, self.id)))

    def leave(self, database: Database) -> None:
        """Release everything and leave the group."""
        database.write(lambda connection: self._remove(connection, [self.id]))

    def commit(self, database: Database, offsets: Sequence[tuple[PartitionRow, int, Committed]]) -> None:
        """Commit offsets, each with the generation of its lease, or none. Raises FencedError, TransportError."""

        def store(connection: sqlite3.Connection) -> None:
            for row, generation, committed in offsets:
                done = connection.execute(
                    "UPDATE claims SET committed = ?, metadata = ? "
                    "WHERE group_name = ? AND partition_id = ? AND member = ? AND generation = ?",
                    (committed.offset, committed.metadata, self.group, row.id, self.id, generation),
                )
                if not done.rowcount or not database.is_current(row):
                    raise not_assigned(row.name, self.group)

        database.write(store)

    def _is_balanced(self, connection: sqlite3.Connection, now_ms: int) -> bool:
        members = self._members(connection)
        mine = members.get(self.id)
        if mine is None or now_ms - mine.heartbeat_ms >= self._session_ms / 3 or _dead(members, now_ms):
            return False
        release, take = self._moves(connection, members)
        return not release and not take

    def _rebalance(self, connection: sqlite3.Connection, now_ms: int) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
            (self.group, self.id, msgspec.json.encode(self._topics).decode(), now_ms, self._session_ms),
        )
        self._remove(connection, _dead(self._members(connection), now_ms))
        release, take = self._moves(connection, self._members(connection))
        connection.executemany(
            "UPDATE claims SET member = NULL WHERE group_name = ? AND partition_id = ?",
            [(self.group, partition) for partition in release],
        )
        connection.executemany(
            "INSERT INTO claims (group_name, partition_id, member, generation) VALUES (?, ?, ?, 1) "
            "ON CONFLICT DO UPDATE SET member = excluded.member, generation = generation + 1",
            [(self.group, partition, self.id) for partition in take],
        )

    def _members(self, connection: sqlite3.Connection) -> dict[str, _MemberRow]:
        rows = connection.execute(
            "SELECT member, topics, heartbeat_ms, session_ms FROM members WHERE group_name = ?", (self.group,)
        )
        return {
            name: _MemberRow(frozenset(msgspec.json.decode(topics, type=list[str])), heartbeat_ms, session_ms)
            for name, topics, heartbeat_ms, session_ms in rows
        }

    def _moves(self, connection: sqlite3.Connection, members: Mapping[str, _MemberRow]) -> tuple[list[int], list[int]]:
        """Partitions that this member should release, and free ones that it should take."""
        rows = connection.execute(
            "SELECT partition_id, member FROM claims WHERE group_name = ? AND member IS NOT NULL", (self.group,)
        )
        owners: dict[int, str] = dict(rows.fetchall())
        topics = {name: member.topics for name, member in members.items()}
        wanted = balance(topics, self._partitions, owners)
        release = [id_ for id_, owner in owners.items() if owner == self.id and wanted.get(id_) != self.id]
        take = [id_ for id_, owner in wanted.items() if owner == self.id and owners.get(id_) is None]
        # A partition that another member has still to release is missing.
        self.has_full_share = all(
            owners.get(id_) in (self.id, None) for id_, owner in wanted.items() if owner == self.id
        )
        return release, take

    def _remove(self, connection: sqlite3.Connection, names: Sequence[str]) -> None:
        removed = [(self.group, name) for name in names]
        connection.executemany("UPDATE claims SET member = NULL WHERE group_name = ? AND member = ?", removed)
        connection.executemany("DELETE FROM members WHERE group_name = ? AND member = ?", removed)

    def _leases(self, connection: sqlite3.Connection) -> dict[int, Lease]:
        rows = connection.execute(
            "SELECT partition_id, generation, committed FROM claims WHERE group_name = ? AND member = ?",
            (self.group, self.id),
        )
        return {id_: Lease(generation=generation, committed=committed) for id_, generation, committed in rows}


def _dead(members: Mapping[str, _MemberRow], now_ms: int) -> list[str]:
    # A heartbeat in the future was written before the wall clock was set back. If its writer is alive, it joins again.
    return [name for name, member in members.items() if abs(now_ms - member.heartbeat_ms) > member.session_ms]


def committed(connection: sqlite3.Connection, group: str, row: PartitionRow) -> Committed | None:
    """What the group has committed for a partition."""
    found = connection.execute(
        "SELECT committed, metadata FROM claims WHERE group_name = ? AND partition_id = ?", (group, row.id)
    ).fetchone()
    return None if found is None or found[0] is None else Committed(offset=found[0], metadata=found[1])
