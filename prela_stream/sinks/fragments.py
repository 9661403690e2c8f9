"""Joins the fragments of kept traces. Pure.

A trace that is larger than one record of `sampled` is written as several fragments: in one partition, in order and in one
commit. Records of other workers may lie between them. The joiner keeps the fragments of a trace until the last one arrives, and
it reports the first offset that must be read again after a restart.
"""

from typing import Final

import msgspec

from prela_stream.codec.sampled import KeptFragment

COMMIT_MS: Final = 900_000
"""The longest time between the first and the last fragment of a trace, by the log's clock. Kafka aborts a transaction after 15
minutes at the latest (`transaction.max.timeout.ms`), so a trace that is incomplete by then stays incomplete."""


class _Incomplete(msgspec.Struct):
    """A trace whose last fragment has not arrived."""

    offset: int
    """Of its first fragment."""
    timestamp_ms: int
    fragments: list[KeptFragment]


class FragmentJoiner:
    """Joins the fragments of one partition of `sampled`."""

    def __init__(self) -> None:
        self._incomplete: dict[bytes, _Incomplete] = {}
        """By decision id, in the order of their first fragments."""
        self.given_up = 0
        """Traces that were given up because a fragment is missing: retention deleted it, or it could not be read."""

    def first_offset(self) -> int | None:
        """Offset of the first record that an incomplete trace needs; None if there is no incomplete trace."""
        return next((trace.offset for trace in self._incomplete.values()), None)

    def add(self, fragment: KeptFragment, *, offset: int, timestamp_ms: int) -> list[KeptFragment]:
        """Add the next fragment of the partition.

        Args:
            fragment: The decoded record.
            offset: Offset of the record.
            timestamp_ms: Log-append time of the record.

        Returns:
            All fragments of the trace if this one completes it. A fragment of late spans is returned alone and at once. Empty if
            more fragments must follow, if the fragment is a duplicate, or if an earlier one is missing.
        """
        self._expire(timestamp_ms)
        if fragment.late:
            return [fragment]
        key = fragment.decision.decision_id
        trace = self._incomplete.get(key)
        number = 0 if trace is None else len(trace.fragments)
        if fragment.fragment < number:
            return []  # another consumer group of workers on the same topics committed the same decision
        if fragment.fragment > number:
            self._incomplete.pop(key, None)
            self.given_up += 1
            return []
        if trace is None:
            if fragment.last:
                return [fragment]
            self._incomplete[key] = _Incomplete(offset=offset, timestamp_ms=timestamp_ms, fragments=[fragment])
            return []
        trace.fragments.append(fragment)
        return self._incomplete.pop(key).fragments if fragment.last else []

    def _expire(self, timestamp_ms: int) -> None:
        while self._incomplete:
            key, oldest = next(iter(self._incomplete.items()))
            if timestamp_ms - oldest.timestamp_ms < COMMIT_MS:
                return
            del self._incomplete[key]
            self.given_up += 1
