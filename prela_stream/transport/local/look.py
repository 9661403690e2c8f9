"""The half of a consumer that runs in its thread: tends the group membership and reads what is wanted, one look at a time."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence

import msgspec

from prela_stream.transport.local import log
from prela_stream.transport.local.database import Database
from prela_stream.transport.local.group import Lease, Member
from prela_stream.transport.local.schema import Place


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the consumer knows and asks for. Partitions are given by their ids."""

    known: dict[int, int]
    """Generation of each lease that it knows of."""
    positions: dict[int, int]
    """Where to read, of each partition that is not paused."""
    max_records: int
    max_bytes: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one look brought, by partition id."""

    leases: dict[int, Lease]
    """Everything that is held now."""
    beginnings: dict[int, int] = {}
    """First kept offset of those newly held that have no committed offset."""
    slices: dict[int, log.Slice] = {}
    whole: bool = True
    """Whether nothing more is to be held, as the group stands."""


class Looker:
    """Looks at the log for one consumer. Without a member every partition is held from the start and for good."""

    def __init__(self, places: Sequence[Place], member: Member | None, clock: Callable[[], int]) -> None:
        self._places = {at.id: at for at in places}
        self._member = member
        self._clock = clock
        self._leases = {} if member else {id_: Lease(generation=0, committed=None) for id_ in self._places}
        self._tended: tuple[int, int] | None = None
        self._seen: tuple[int, dict[int, int]] | None = None
        self._turn = 0

    def look(self, database: Database, wanted: Wanted) -> Found:
        """Tend the membership if it is time, then read if there may be something new. Raises TransportError."""
        # Taken before reading: what is committed meanwhile shows at the next look.
        version = database.data_version()
        if self._member is not None:
            self._tend(database, self._member, version)
        leases, whole = self._leases, self._member is None or self._member.has_its_share
        valid = {
            id_: position
            for id_, position in wanted.positions.items()
            if id_ in leases and leases[id_].generation == wanted.known[id_]
        }
        new = [
            id_ for id_, held in leases.items() if held.committed is None and wanted.known.get(id_) != held.generation
        ]
        if not new and self._seen == (version, valid):
            return Found(leases=leases, whole=whole)

        def read(connection: sqlite3.Connection) -> Found:
            beginnings = {id_: log.beginning_offset(connection, self._places[id_]) for id_ in new}
            slices = self._read(connection, valid, wanted)
            return Found(leases=leases, beginnings=beginnings, slices=slices, whole=whole)

        found = database.read(read)
        ends = {id_: part.next_offset for id_, part in found.slices.items()}
        self._seen = None if any(part.records for part in found.slices.values()) else (version, ends)
        return found

    def _tend(self, database: Database, member: Member, version: int) -> None:
        now_ms = self._clock()
        if self._tended is not None:
            seen, then_ms = self._tended
            if seen == version and abs(now_ms - then_ms) < member.look_every_ms:
                return
        self._leases = member.tend(database, now_ms)
        self._tended = (version, now_ms)

    def _read(
        self, connection: sqlite3.Connection, positions: Mapping[int, int], wanted: Wanted
    ) -> dict[int, log.Slice]:
        """Read the partitions in turn, beginning with another one each time, so that a busy one starves no other."""
        order = sorted(positions)
        self._turn += 1
        first = self._turn % len(order) if order else 0
        slices: dict[int, log.Slice] = {}
        records, size = wanted.max_records, wanted.max_bytes
        for id_ in order[first:] + order[:first]:
            # At least one Record a look, however large; after that, only what fits.
            empty = records == wanted.max_records
            part = log.read(
                connection,
                self._places[id_],
                positions[id_],
                max_records=records,
                max_bytes=size,
                oversize=empty,
            )
            slices[id_] = part
            records -= len(part.records)
            size -= part.size
        return slices
