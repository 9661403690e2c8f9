"""Decides the traces of a partition by its policies, and adds the decisions and the kept traces to the output."""

from collections.abc import Iterator

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

    def use(self, counters: ItemCounters, dead_letters: DeadLetters) -> None:
        """Count with these."""
        self._counters = counters
        self._dead_letters = dead_letters

    def decide(self, ready: ReadyTrace, intake: Intake, cut: int) -> Iterator[int] | None:
        """Decide `ready`, whose items are in records below `cut`.

        Returns:
            None if the trace is dropped. If it is kept, the steps that remain, which yield 0; take all of them.
        """
        trace = ready.trace
        if trace is None:
            intake.discarded(ready)
            return None
        verdict = self._evaluator.decide(trace)
        if verdict.kept:
            return self._keep(ready, verdict, intake, cut)
        if ready.poison:
            self._dead_letters.add_poison_of(ready)
        repeated = self._remembered.was_decided(ready.trace_id, ready.due_ms)
        intake.decided(ready.trace_id)
        self._outputs.decide(self._drop(ready, trace, verdict, cut, repeated=repeated))
        self._counters.dropped += ready.spans - ready.poison_spans
        self._core.remember(ready.trace_id, None, ready.due_ms)
        self._dead_letters.tally.decided(trace.trigger, verdict.policy, ready.due_ms, kept=False)
        return None

    def decide_in_steps(self, ready: ReadyTrace | None, intake: Intake, cut: int) -> Iterator[int]:
        """As `decide`, if there is a trace. Yields 0, at least once."""
        if ready is not None and (kept := self.decide(ready, intake, cut)) is not None:
            yield from kept
        yield 0

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
            self._counters.kept += ready.spans - ready.poison_spans
            self._core.remember(ready.trace_id, self._packed.pack(decision), ready.due_ms)
            self._dead_letters.tally.decided(trace.trigger, verdict.policy, ready.due_ms, kept=True)
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

    def _drop(
        self, ready: ReadyTrace, trace: Trace, verdict: Verdict, cut: int, *, repeated: bool
    ) -> Decision | msgspec.Raw:
        """As `_decision` for a trace that is dropped: already encoded if the core does that."""
        fields = self._fields
        if fields is None or self._verdict is not verdict:
            fields = self._fields = self._encoded(verdict)
            self._verdict = verdict
        encoded = ready.dropped(fields, cut, repeated=repeated)
        if encoded is None:
            return self._decision(ready, trace, verdict, cut, repeated=repeated)
        return msgspec.Raw(encoded)

    def _encoded(self, verdict: Verdict) -> DropFields:
        reason = verdict.reason[:_REASON_CHARACTERS]
        return DropFields(
            source=self._id_prefix,
            verdict=encode_fields(verdict.probability, verdict.threshold, verdict.weight, verdict.policy, reason),
            version=encode_fields(self._policy_version),
            weight_biased=verdict.weight_biased,
        )
