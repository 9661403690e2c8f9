"""Spans that arrive after the decision on their trace: they inherit its verdict."""

from collections.abc import Iterator

from prela_stream.assembly.base import Applied, Core
from prela_stream.assembly.decoding import body_problem
from prela_stream.codec.spans import BadItem
from prela_stream.worker.checkpoint import ItemCounters
from prela_stream.worker.intake import DeadLetters, Intake
from prela_stream.worker.outputs import Outputs
from prela_stream.worker.packing import PackedDecisions

SPANS = 128
TRACES = 32
"""So many spans are checked, and those of so many traces are written, in about a millisecond."""


class LateSpans:
    """Counts late spans, and writes those of kept traces.

    Args:
        core: Has the live decisions.
        packed: Unpacks them.
        outputs: The pending output.
        dead_letters: Receives unreadable spans.
        counters: The counters of the partition.
    """

    def __init__(
        self,
        core: Core,
        packed: PackedDecisions,
        outputs: Outputs,
        dead_letters: DeadLetters,
        counters: ItemCounters,
    ) -> None:
        self._core = core
        self._packed = packed
        self._outputs = outputs
        self._dead_letters = dead_letters
        self._counters = counters

    def forward(self, applied: Applied, offset: int, intake: Intake) -> Iterator[int]:
        """Count late spans, and write those of kept traces. Yields 0 about once in a millisecond, as `PartitionState.steps`."""
        yield 0
        by_trace: dict[bytes, list[bytes]] = {}
        bad: list[BadItem] = []
        for number, (trace_id, place, raw) in enumerate(applied.late, 1):
            if number % SPANS == 0:
                yield 0
            if not intake.writes_late(trace_id):
                continue
            if self._core.entry(trace_id) is not None and (problem := body_problem(raw)):
                bad.append(BadItem(index=place, raw=raw, reason=problem))
                continue
            by_trace.setdefault(trace_id, []).append(raw)
        self._dead_letters.add(bad, offset)
        for number, (trace_id, raws) in enumerate(by_trace.items(), 1):
            if number % TRACES == 0:
                yield 0
            entry = self._core.entry(trace_id)
            self._dead_letters.tally.late(len(raws), kept=entry is not None)
            if entry is None:
                self._counters.late_dropped += len(raws)
            else:
                assert applied.late_resource is not None
                self._counters.late_kept += len(raws)
                self._outputs.keep_late(self._packed.unpack(trace_id, entry), raws, applied.late_resource, offset)
