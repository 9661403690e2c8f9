"""The decision on a trace, from the verdict of the policies and what is known of the trace."""

import msgspec

from prela_stream.assembly.base import ReadyTrace
from prela_stream.codec.decisions import DropFields, encode_fields
from prela_stream.model.decision import Decision, decision_id_of, decision_source
from prela_stream.model.trace import Trace
from prela_stream.sampling.policy import Verdict
from prela_stream.transport.base import TopicPartition

_REASON_CHARACTERS = 500


class Deciding:
    """Makes the decisions of one partition.

    Args:
        source: The partition.
        policy_version: Content hash of the policy set.
    """

    def __init__(self, source: TopicPartition, policy_version: str) -> None:
        self._source = source
        self._policy_version = policy_version
        self._id_prefix = decision_source(source.topic, source.partition)
        self._verdict: Verdict | None = None
        self._fields: DropFields | None = None
        """Encoded, for `_verdict`: the evaluator returns one object for most traces."""

    def decision(self, ready: ReadyTrace, trace: Trace, verdict: Verdict, cut: int, *, repeated: bool) -> Decision:
        """The decision on `ready`, whose items are in records below `cut`."""
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

    def drop(
        self, ready: ReadyTrace, trace: Trace, verdict: Verdict, cut: int, *, repeated: bool
    ) -> Decision | msgspec.Raw:
        """As `decision` for a trace that is dropped: already encoded if the core does that."""
        fields = self._fields
        if fields is None or self._verdict is not verdict:
            fields = self._fields = self._encoded(verdict)
            self._verdict = verdict
        encoded = ready.dropped(fields, cut, repeated=repeated)
        if encoded is None:
            return self.decision(ready, trace, verdict, cut, repeated=repeated)
        return msgspec.Raw(encoded)

    def _encoded(self, verdict: Verdict) -> DropFields:
        reason = verdict.reason[:_REASON_CHARACTERS]
        return DropFields(
            source=self._id_prefix,
            verdict=encode_fields(verdict.probability, verdict.threshold, verdict.weight, verdict.policy, reason),
            version=encode_fields(self._policy_version),
            weight_biased=verdict.weight_biased,
        )
