"""The half of a consumer that runs in its thread: it keeps up the membership and reads what the consumer asks for."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

import msgspec

from prela_stream.transport.local import log
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.group import Lease, Member
from prela_stream.transport.local.schema import PartitionRow


class ReadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the consumer has and what it wants to read. Partitions are given by their ids in the file `log_id`."""

    log_id: str
    """The log file that the ids belong to; empty before the first read."""
    known: dict[int, int]
    """Generation of each lease that the consumer knows."""
    positions: dict[int, int]
    """Where to read, for each partition that is not paused."""
    max_records: int
    max_bytes: int


class ReadResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one read, by partition id."""

    log_id: str
    """The log file that the ids belong to. If it is not that of the request, the file was replaced."""
    rows: Mapping[int, PartitionRow]
    """All partitions of the consumer's topics."""
    leases: dict[int, Lease]
    """Everything that is assigned now."""
    beginnings: dict[int, int] = {}
    """First retained offset of new leases without a committed offset."""
    slices: dict[int, log.Slice] = {}
    complete: bool = True
    """Whether the leases are the full share of this member, as the group is now."""


class LogReader:
    """Reads for one consumer. Without a member every partition is assigned from the start."""

    def __init__(self, topics: Sequence[str], member: Member | None, clock: Callable[[], int]) -> None:
        self._topics = topics
        self._member = member
        self._clock = clock
        self._log_id = ""
        self._rows: dict[int, PartitionRow] = {}
        self._leases: dict[int, Lease] = {}
        self._updated: tuple[int, int] | None = None
        self._seen: tuple[int, dict[int, int]] | None = None
        self._turn = 0

    def read(self, database: Database, request: ReadRequest) -> ReadResult:
        """Update the membership if that is due, then read if there may be something new.

        Raises UnknownTopicError, TransportError.
        """
        # Taken before reading: what is committed during the read is found by the next one.
        version = database.data_version()
        self._follow_file(database)
        known, positions = request.known, request.positions
        if request.log_id != self._log_id:
            known, positions = {}, {}
        if self._member is not None:
            self._update(database, self._member, version)
        leases = self._leases
        valid = {
            id_: position
            for id_, position in positions.items()
            if id_ in leases and leases[id_].generation == known[id_]
        }
        new = [id_ for id_, lease in leases.items() if lease.committed is None and known.get(id_) != lease.generation]
        complete = self._member is None or self._member.has_full_share
        empty = ReadResult(log_id=self._log_id, rows=self._rows, leases=leases, complete=complete)
        if not new and self._seen == (version, valid):
            return empty

        def read(connection: sqlite3.Connection) -> ReadResult:
            if self._is_outdated(database):
                return empty  # the file was replaced a moment ago: the next read follows it
            beginnings = {id_: log.beginning_offset(connection, self._rows[id_]) for id_ in new}
            slices = self._read(connection, valid, request)
            return msgspec.structs.replace(empty, beginnings=beginnings, slices=slices)

        found = database.read(read)
        if found is empty and new:
            return self.read(database, request)  # new leases need their beginnings
        ends = {id_: part.next_offset for id_, part in found.slices.items()}
        self._seen = None if any(part.records for part in found.slices.values()) else (version, ends)
        return found

    def _is_outdated(self, database: Database) -> bool:
        return not self._rows or not database.is_current(next(iter(self._rows.values())))

    def _follow_file(self, database: Database) -> None:
        """Find the partitions in the file, and again if the file was replaced."""
        if not self._is_outdated(database):
            return
        rows = database.partitions_of(self._topics)
        self._log_id = rows[0].log_id if rows else ""
        self._rows = {row.id: row for row in rows}
        self._updated = self._seen = None
        self._leases = {}
        if self._member is not None:
            self._member.use(rows)
        else:
            self._leases = {id_: Lease(generation=0, committed=None) for id_ in self._rows}

    def _update(self, database: Database, member: Member, version: int) -> None:
        now_ms = self._clock()
        if self._updated is not None:
            seen, then_ms = self._updated
            if seen == version and abs(now_ms - then_ms) < member.check_every_ms:
                return
        self._leases = member.update(database, now_ms)
        self._updated = (version, now_ms)

    def _read(
        self, connection: sqlite3.Connection, positions: Mapping[int, int], request: ReadRequest
    ) -> dict[int, log.Slice]:
        """Read the partitions in turn, each time starting with another one, so that a busy one starves no other."""
        order = sorted(positions)
        self._turn += 1
        first = self._turn % len(order) if order else 0
        slices: dict[int, log.Slice] = {}
        records, size = request.max_records, request.max_bytes
        for id_ in order[first:] + order[:first]:
            # At least one record per read, however large; after that, only what fits.
            empty = records == request.max_records
            part = log.read(
                connection,
                self._rows[id_],
                positions[id_],
                max_records=records,
                max_bytes=size,
                oversize=empty,
            )
            slices[id_] = part
            records -= len(part.records)
            size -= part.size
        return slices
