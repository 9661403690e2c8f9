"""Decides the traces of a partition by its policies, and adds the decisions and the kept traces to the output."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from prela_stream.assembly.base import Core, ReadyTrace
from prela_stream.codec.decisions import DropFields, encode_fields
from prela_stream.model.decision import Decision, decision_id_of, decision_source
from prela_stream.model.trace import Trace
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policy import Verdict
from prela_stream.transport.base import TopicPartition
from prela_stream.worker.checkpoint import ItemCounters
from prela_stream.worker.intake import DeadLetters, Intake
from prela_stream.worker.outputs import Outputs
from prela_stream.worker.packing import PackedDecisions
from prela_stream.worker.remembered import Remembered

_REASON_CHARACTERS = 500
_TOGETHER = 16
"""So many traces take each stage together. The code of one stage fits into a processor's first cache, that of all does not."""
SPANS_TOGETHER = 256
"""The trace that reaches so many spans is the last of those that are decided together."""
LARGE = 2048
"""Policies read a trace with more spans, open ones included, in steps."""


class Deciding:
    """Decides the traces of one partition.

    Args:
        source: The partition.
        evaluator: The policies.
        core: Remembers the decisions.
        packed: Packs the decisions on kept traces.
        remembered: Has the traces that were decided before.
        outputs: The pending output.
    """

    def __init__(
        self,
        source: TopicPartition,
        evaluator: Evaluator,
        *,
        core: Core,
        packed: PackedDecisions,
        remembered: Remembered,
        outputs: Outputs,
    ) -> None:
        self._source = source
        self._evaluator = evaluator
        self._core = core
        self._packed = packed
        self._remembered = remembered
        self._outputs = outputs
        self._policy_version = evaluator.policy_set.version
        self._id_prefix = decision_source(source.topic, source.partition)
        self._verdict: Verdict | None = None
        self._fields: DropFields | None = None
        """Encoded, for `_verdict`: the evaluator returns one object for most traces."""
        self.is_writing = False
        """A kept trace is added to the output in part."""
        self.undecided_spans = 0
        """Spans of traces that the core no longer holds, and that are not decided yet."""

    def use(self, counters: ItemCounters, dead_letters: DeadLetters) -> None:
        """Count with these."""
        self._counters = counters
        self._dead_letters = dead_letters

    def decide(
        self, found: Iterable[ReadyTrace | None], intake: Intake, cut: int, decided: Callable[[], None]
    ) -> Iterator[int]:
        """Decide traces whose items are in records below `cut`. `decided` is called after each.

        It yields 0 where `found` has None, inside of a kept trace, and after a few traces.
        """
        some: list[ReadyTrace] = []
        spans = 0
        for ready in found:
            if ready is not None:
                some.append(ready)
                spans += ready.spans
                if len(some) < _TOGETHER and spans < SPANS_TOGETHER:
                    continue
            yield from self._decide(some, intake, cut, decided)
            some, spans = [], 0
            yield 0
        yield from self._decide(some, intake, cut, decided)

    def _decide(
        self, some: Sequence[ReadyTrace], intake: Intake, cut: int, decided: Callable[[], None]
    ) -> Iterator[int]:
        self.undecided_spans = sum([ready.spans for ready in some])
        trace = some[-1].trace if some else None
        if trace is not None and len(trace.statuses) > LARGE:  # None follows a large trace, so no other one is large
            for _ in self._evaluator.prepare(trace):
                yield 0
        evaluate, was_decided = self._evaluator.decide, self._remembered.was_decided
        verdicts = [None if ready.trace is None else evaluate(ready.trace) for ready in some]
        dropped = [
            None
            if verdict is None or verdict.kept
            else self._drop(ready, verdict, cut, repeated=was_decided(ready.trace_id, ready.due_ms))
            for ready, verdict in zip(some, verdicts, strict=True)
        ]
        for ready, verdict, decision in zip(some, verdicts, dropped, strict=True):
            self.undecided_spans -= ready.spans
            if verdict is None:
                intake.discarded(ready)
            elif decision is None:
                yield from self._keep(ready, verdict, intake, cut)
            else:
                if ready.poison:
                    self._dead_letters.add_poison_of(ready)
                intake.decided(ready.trace_id)
                self._outputs.decide(decision)
                self._count(ready, verdict, None)
            decided()

    def _count(self, ready: ReadyTrace, verdict: Verdict, entry: bytes | None) -> None:
        spans = ready.spans - ready.poison_spans
        if verdict.kept:
            self._counters.kept += spans
        else:
            self._counters.dropped += spans
        self._core.remember(ready.trace_id, entry, ready.due_ms)
        assert ready.trace is not None  # it has a verdict
        self._dead_letters.tally.decided(ready.trace.trigger, verdict.policy, ready.due_ms, kept=verdict.kept)

    def _keep(self, ready: ReadyTrace, verdict: Verdict, intake: Intake, cut: int) -> Iterator[int]:
        self.is_writing = True
        ready = yield from ready.with_checked_bodies()
        trace = ready.trace
        if trace is None:
            intake.discarded(ready)
        else:
            if ready.poison:
                self._dead_letters.add_poison_of(ready)
            repeated = self._remembered.was_decided(ready.trace_id, ready.due_ms)
            intake.decided(ready.trace_id)
            decision = self._decision(ready, trace, verdict, cut, repeated=repeated)
            self._outputs.decide(decision)
            yield from self._outputs.keep(decision, ready.pieces())
            self._count(ready, verdict, self._packed.pack(decision))
        self.is_writing = False

    def _decision(self, ready: ReadyTrace, trace: Trace, verdict: Verdict, cut: int, *, repeated: bool) -> Decision:
        return Decision(
            trace_id=ready.trace_id,
            decision_id=decision_id_of(self._source.topic, self._source.partition, ready.trace_id, ready.first_offset),
            kept=verdict.kept,
            probability=verdict.probability,
            threshold=verdict.threshold,
            weight=0.0 if repeated else verdict.weight,
            policy=verdict.policy,
            reason=verdict.reason[:_REASON_CHARACTERS],
            trigger=trace.trigger,
            complete=trace.complete,
            first_offset=ready.first_offset,
            cut_offset=cut,
            decided_at_ms=ready.due_ms,
            policy_version=self._policy_version,
            summary=trace.summary(ready.due_ms),
            weight_biased=verdict.weight_biased,
            repeated=repeated,
            basis=ready.basis,
        )

    def _drop(self, ready: ReadyTrace, verdict: Verdict, cut: int, *, repeated: bool) -> Decision | msgspec.Raw:
        """As `_decision` for a trace that is dropped: already encoded if the core does that."""
        fields = self._fields
        if fields is None or self._verdict is not verdict:
            fields = self._fields = self._encoded(verdict)
            self._verdict = verdict
        encoded = ready.dropped(fields, cut, repeated=repeated)
        if encoded is not None:
            return msgspec.Raw(encoded)
        assert ready.trace is not None  # it has a verdict
        return self._decision(ready, ready.trace, verdict, cut, repeated=repeated)

    def _encoded(self, verdict: Verdict) -> DropFields:
        reason = verdict.reason[:_REASON_CHARACTERS]
        return DropFields(
            source=self._id_prefix,
            verdict=encode_fields(verdict.probability, verdict.threshold, verdict.weight, verdict.policy, reason),
            version=encode_fields(self._policy_version),
            weight_biased=verdict.weight_biased,
        )
