"""Counts of a partition since its last commit. They are added to the metrics when the next commit has landed."""

from prela_stream import telemetry
from prela_stream.model.decision import Trigger


class Tally:
    """Counts of one partition between two commits. If a commit fails, its work is repeated and counted then."""

    __slots__ = ("_decisions", "_due_ms", "_forgotten", "_items", "_late_dropped", "_late_kept", "_poison")

    def __init__(self) -> None:
        self._decisions: dict[tuple[bool, Trigger, str], int] = {}
        self._due_ms: dict[int, int] = {}
        """How many of the decided traces were due at each stream time."""
        self._forgotten = self._items = self._poison = self._late_kept = self._late_dropped = 0

    def items(self, count: int) -> None:
        """Items of the `spans` topic were consumed."""
        self._items += count

    def poison(self, items: int) -> None:
        """Items could not be read."""
        self._poison += items

    def forgotten(self, decisions: int) -> None:
        """Decisions were forgotten early."""
        self._forgotten += decisions

    def late(self, spans: int, *, kept: bool) -> None:
        """Spans arrived after the decision on their trace."""
        if kept:
            self._late_kept += spans
        else:
            self._late_dropped += spans

    def decided(self, trigger: Trigger, policy: str, due_ms: int, *, kept: bool) -> None:
        """A trace was decided that was due at this stream time."""
        key = kept, trigger, policy
        self._decisions[key] = self._decisions.get(key, 0) + 1
        self._due_ms[due_ms] = self._due_ms.get(due_ms, 0) + 1

    def publish(self, now_ms: float) -> None:
        """Add these counts to the metrics, once. `now_ms` is the wall time at which the commit landed."""
        for (kept, trigger, policy), count in self._decisions.items():
            telemetry.WORKER_DECISIONS.add(count, "kept" if kept else "dropped", trigger.value, policy)
        telemetry.WORKER_DECISION_LATENCY.observe_all(
            (max(0.0, now_ms - due) / 1000, traces) for due, traces in self._due_ms.items()
        )
        for counter, count in (
            (telemetry.WORKER_ITEMS, self._items),
            (telemetry.WORKER_POISON, self._poison),
            (telemetry.WORKER_FORGOTTEN, self._forgotten),
        ):
            if count:
                counter.add(count)
        for count, verdict in ((self._late_kept, "kept"), (self._late_dropped, "dropped")):
            if count:
                telemetry.WORKER_LATE_SPANS.add(count, verdict)
