"""Accounting of new records: every item is counted, and every unreadable one goes to the dead-letter topic.

`NewRecords` and `replay.Replay` have the same methods. `PartitionState` calls one of them for each record and does not need to
know whether the record is new.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from prela_stream.assembly.base import Applied, ReadyTrace
from prela_stream.codec.dlq import DeadLetter
from prela_stream.codec.spans import BadItem
from prela_stream.errors import PrelaError
from prela_stream.transport.base import TopicPartition
from prela_stream.worker.checkpoint import ItemCounters
from prela_stream.worker.outputs import Outputs
from prela_stream.worker.tally import Tally

_MOST_REASONS = 16
_OTHER_REASONS = "unreadable for other reasons than those of this record's other dead letters"


class PoisonLimitError(PrelaError):
    """Too many items were unreadable, and `worker.poison_action` is "stop". A producer probably writes another format."""


class Intake(Protocol):
    """How the items of a record are counted."""

    def applied(self, result: Applied, offset: int) -> None:
        """Account for the items of the record at `offset`. The core counts duplicates."""
        ...

    def decided(self, trace_id: bytes) -> None:
        """A trace was decided."""
        ...

    def discarded(self, ready: ReadyTrace) -> None:
        """Dead-letter a trace that cannot be decided, because none of its spans is readable."""
        ...

    def writes_late(self, trace_id: bytes) -> bool:
        """Whether late spans of this trace have to be counted and written."""
        ...


class DeadLetters:
    """Counts unreadable items and adds them to the output.

    Args:
        source: The partition that they come from.
        outputs: The pending output.
        counters: The counters of the partition.
    """

    def __init__(self, source: TopicPartition, outputs: Outputs, counters: ItemCounters) -> None:
        self._source = source
        self._outputs = outputs
        self._counters = counters
        self.tally = Tally()
        """Counts since the last commit."""

    def add(self, bad: Sequence[BadItem], offset: int) -> None:
        """Dead-letter items of the record at `offset`: one letter for all that are unreadable for the same reason."""
        if not bad:
            return
        self._counters.dlq += len(bad)
        self.tally.poison(len(bad))
        groups: dict[str, list[BadItem]] = {}
        for one in bad:
            reason = one.reason if one.reason in groups or len(groups) < _MOST_REASONS else _OTHER_REASONS
            groups.setdefault(reason, []).append(one)
        for reason, items in groups.items():
            self._outputs.dead_letter(
                DeadLetter(
                    topic=self._source.topic,
                    partition=self._source.partition,
                    offset=offset,
                    index=items[0].index,
                    reason=reason,
                    raw=items[0].raw if len(items) == 1 else b"".join(one.raw for one in items),
                    count=sum(one.items for one in items),
                    places=_places(one.index for one in items),
                )
            )

    def add_poison_of(self, ready: ReadyTrace) -> None:
        """Dead-letter the unreadable items of a trace, with the offset of its first item."""
        self.add(ready.poison, ready.first_offset)
        self._counters.control -= len(ready.poison) - ready.poison_spans  # a START was counted when it was consumed


class NewRecords:
    """Records that no commit covers yet.

    Args:
        counters: The counters of the partition.
        dead_letters: Receives unreadable items.
        window: Number of items over which the share of unreadable ones is computed.
    """

    def __init__(self, counters: ItemCounters, dead_letters: DeadLetters, window: int) -> None:
        self._counters = counters
        self._dead_letters = dead_letters
        self._window = window
        self._items = self._bad = 0
        self.discards = 0
        """Traces that were discarded since the beginning of the record."""
        self.discards_before = 0
        """How many of them the commit contained at which the partition was restored."""

    def applied(self, result: Applied, offset: int) -> None:
        """See `Intake.applied`."""
        items = result.items + len(result.bad) + result.unknown
        self._counters.consumed += items
        self._counters.control += result.control + result.unknown
        self._dead_letters.tally.items(items)
        self._dead_letters.add(result.bad, offset)
        self._items += items
        self._bad += len(result.bad)

    def decided(self, trace_id: bytes) -> None:
        """See `Intake.decided`: nothing to do."""

    def discarded(self, ready: ReadyTrace) -> None:
        """See `Intake.discarded`."""
        self.discards += 1
        if self.discards > self.discards_before:
            self._dead_letters.add_poison_of(ready)
        else:
            # They are in `dlq` already, and the end of the replay has subtracted them from the duplicates.
            self._counters.duplicates += ready.spans

    def writes_late(self, trace_id: bytes) -> bool:  # noqa: ARG002 - all late spans of new records are written
        """See `Intake.writes_late`: always."""
        return True

    def unreadable_share(self) -> tuple[float, int] | None:
        """The share of unreadable items and the number of items, once a window is full; it then starts a new window."""
        if self._items < self._window:
            return None
        found = self._bad / self._items, self._items
        self._items = self._bad = 0
        return found


def _places(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """The indexes as (first index, number of consecutive indexes), in order; without -1, which is no place."""
    found: list[tuple[int, int]] = []
    for index in indexes:
        if found and index == found[-1][0] + found[-1][1]:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        elif index >= 0:
            found.append((index, 1))
    return found
