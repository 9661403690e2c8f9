"""The pending output of a partition: records of `sampled`, `decisions` and `dlq`, within the size limits of their topics."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from prela_stream.codec.byte_cache import ByteCache
from prela_stream.codec.decisions import DECISIONS_FORMAT, encode_decisions
from prela_stream.codec.dlq import DLQ_FORMAT, DeadLetter, encode_dead_letter
from prela_stream.codec.sampled import SAMPLED_FORMAT, KeptFragment, encode_kept
from prela_stream.codec.spans import readable_resource
from prela_stream.codec.versions import FORMAT_HEADER, GROUP_HEADER
from prela_stream.model.decision import Decision
from prela_stream.model.ids import partition_of
from prela_stream.transport.base import Record, TopicPartition
from prela_stream.transport.options import TopicOptions

_PLACE_BYTES = 10
"""Most bytes of an encoded place of a dead letter."""
_DECISION_BYTES = 400
"""Approximate size of an encoded decision. It determines when to commit and how many decisions to put into one record."""


_readable = ByteCache(readable_resource, 4 << 20)
"""The resource of a process as it is stored. One that readers cannot skip would cost the whole record of `sampled`."""


Pieces = Iterable[tuple[Sequence[bytes], Sequence[bytes]]]


class Outputs:
    """Collects the records of the next commit of one partition. Pure; not shared between partitions.

    Args:
        source: The partition whose traces are decided.
        topics: Names, partition counts and the size limit of the topics.
        group: The consumer group of the worker, written into the header of each record.
    """

    def __init__(self, source: TopicPartition, topics: TopicOptions, group: str) -> None:
        self._source = source
        self._group = (GROUP_HEADER, group.encode())
        self._topics = topics
        self._limit = topics.max_record_bytes
        self._step = max(1, self._limit // (4 * _DECISION_BYTES))
        self._records: list[tuple[TopicPartition, Record]] = []
        self._decisions: list[Decision | msgspec.Raw] = []
        self.bytes = 0
        """Approximate size of the next commit."""

    @property
    def count(self) -> int:
        """Number of records of the next commit."""
        return len(self._records) + (1 if self._decisions else 0)

    def decide(self, decision: Decision | msgspec.Raw) -> None:
        """Add a decision, kept or dropped; `Raw` is an encoded one."""
        self._decisions.append(decision)
        self.bytes += _DECISION_BYTES
        if len(self._decisions) >= self._step:  # encoding all of a large commit at once would block the event loop
            self._write_decisions()

    def keep(self, decision: Decision, pieces: Pieces) -> Iterator[int]:
        """Add a kept trace, in as many fragments as it needs. `pieces`: its items and the resource of each.

        Yields 0 after each piece but the last, and after each fragment but the last.
        """
        number = 0
        for fragment, last in self._cut(pieces):
            if fragment is not None:
                self._forward(decision, fragment, number=number, last=last, late=False)
                number += 1
            if not last:
                yield 0

    def keep_late(self, decision: Decision, raws: Sequence[bytes], resource: bytes, offset: int) -> None:
        """Add late spans of a kept trace from the record at `offset`."""
        for fragment, _ in self._cut([(raws, [resource] * len(raws))]):
            if fragment is not None:
                self._forward(decision, fragment, number=offset, last=True, late=True)

    def dead_letter(self, letter: DeadLetter) -> None:
        """Add unreadable bytes. What exceeds the size limit of a record is cut, and the reason records it."""
        most_places = self._limit // (4 * _PLACE_BYTES)
        if len(letter.places) > most_places:
            reason = f"{letter.reason} (only the first {most_places} of {len(letter.places)} places are stored)"
            letter = msgspec.structs.replace(letter, places=letter.places[:most_places], reason=reason)
        room = self._limit - _PLACE_BYTES * len(letter.places)
        if len(letter.raw) > room:
            reason = f"{letter.reason} (only the first {room} of {len(letter.raw)} bytes are stored)"
            letter = msgspec.structs.replace(letter, raw=letter.raw[:room], reason=reason)
        self._add(TopicPartition(self._topics.dlq, 0), encode_dead_letter(letter), DLQ_FORMAT, key=None)

    def take(self) -> list[tuple[TopicPartition, Record]]:
        """Remove and return all records."""
        self._write_decisions()
        records, self._records, self.bytes = self._records, [], 0
        return records

    def _write_decisions(self) -> None:
        decisions, self._decisions = self._decisions, []
        if decisions:
            self.bytes -= _DECISION_BYTES * len(decisions)
            self._write(decisions)

    def _write(self, decisions: Sequence[Decision | msgspec.Raw]) -> None:
        """Write decisions as one record, or as two if multi-byte names make it too large."""
        value = encode_decisions(decisions)
        if len(value) > self._limit and len(decisions) > 1:
            half = len(decisions) // 2
            self._write(decisions[:half])
            self._write(decisions[half:])
            return
        self._add(TopicPartition(self._topics.decisions, self._source.partition), value, DECISIONS_FORMAT, key=None)

    def _forward(self, decision: Decision, fragment: "_Fragment", *, number: int, last: bool, late: bool) -> None:
        value = encode_kept(
            KeptFragment(
                decision=decision,
                fragment=number,
                last=last,
                late=late,
                resources=[msgspec.Raw(_readable(resource)) for resource in fragment.resources],
                items=fragment.items,
            )
        )
        to = TopicPartition(self._topics.sampled, partition_of(decision.trace_id, self._topics.sampled_partitions))
        self._add(to, value, SAMPLED_FORMAT, key=decision.trace_id)

    def _cut(self, pieces: Pieces) -> Iterator[tuple["_Fragment | None", bool]]:
        """The fragments, and whether each is the last. Between pieces None."""
        fragment = _Fragment()
        is_first = True
        for raws, resources in pieces:
            if not is_first:
                yield None, False
            is_first = False
            if fragment.takes(raws, resources, self._limit):
                continue
            start = 0
            for index, (raw, resource) in enumerate(zip(raws, resources, strict=True)):
                if not fragment.has_room(raw, resource, self._limit):
                    fragment.add(raws[start:index], resources[start:index])
                    yield fragment, False
                    fragment, start = _Fragment(), index
                    fragment.has_room(raw, resource, self._limit)
            fragment.add(raws[start:], resources[start:])
        yield fragment, True

    def _add(self, to: TopicPartition, value: bytes, form: bytes, *, key: bytes | None) -> None:
        self._records.append((to, Record(value=value, key=key, headers=((FORMAT_HEADER, form), self._group))))
        self.bytes += len(value)


class _Fragment:
    """The items of one record of `sampled`.

    An item costs 8 bytes more than it has, and each resource costs its bytes once.
    """

    __slots__ = ("_size", "items", "resources")

    def __init__(self) -> None:
        self._size = 0
        self.resources: dict[bytes, int] = {}
        """The index of each resource."""
        self.items: list[tuple[int, msgspec.Raw]] = []

    def takes(self, raws: Sequence[bytes], resources: Sequence[bytes], limit: int) -> bool:
        """Add all of these items if there is room for them."""
        new = set(resources) - self.resources.keys()
        size = self._size + sum(map(len, raws)) + 8 * len(raws) + sum(map(len, new))
        if size > limit:
            return False
        self._size = size
        self.add(raws, resources)
        return True

    def has_room(self, raw: bytes, resource: bytes, limit: int) -> bool:
        """Whether there is room for this item, which is reserved then. There is always room for the first one."""
        cost = len(raw) + 8 + (0 if resource in self.resources else len(resource))
        if self._size and self._size + cost > limit:
            return False
        self.resources.setdefault(resource, len(self.resources))
        self._size += cost
        return True

    def add(self, raws: Sequence[bytes], resources: Sequence[bytes]) -> None:
        """Add items for which there is room."""
        indexes = self.resources
        self.items += [
            (indexes.setdefault(resource, len(indexes)), msgspec.Raw(raw))
            for raw, resource in zip(raws, resources, strict=True)
        ]
