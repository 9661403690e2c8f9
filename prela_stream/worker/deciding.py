"""The decision on a trace, from the verdict of the policies and what is known of the trace."""

from prela_stream.assembly.base import ReadyTrace
from prela_stream.model.decision import Decision, decision_id_of
from prela_stream.model.trace import Trace
from prela_stream.sampling.policy import Verdict
from prela_stream.transport.base import TopicPartition

_REASON_CHARACTERS = 500


def decision_of(
    source: TopicPartition,
    ready: ReadyTrace,
    trace: Trace,
    verdict: Verdict,
    cut: int,
    policy_version: str,
    *,
    repeated: bool,
) -> Decision:
    """The decision on `ready`, whose items are in records below `cut`."""
    return Decision(
        trace_id=ready.trace_id,
        decision_id=decision_id_of(source.topic, source.partition, ready.trace_id, ready.first_offset),
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
        policy_version=policy_version,
        summary=trace.summary(ready.due_ms),
        weight_biased=verdict.weight_biased,
        repeated=repeated,
        basis=ready.basis,
    )
