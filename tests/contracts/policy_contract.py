"""What every policy promises the evaluator and the policy file, and one row for each of them."""

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import strategies as st

from prela_stream.model.decision import Trigger
from prela_stream.model.span import Resource, SpanStatus, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling import conditions
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.policyset import load_policies
from prela_stream.sampling.registry import POLICIES
from tests.unit.sampling.traces import PlannedSpan, make_trace


class Row(NamedTuple):
    """One policy as a policy file writes it, with a trace that it matches and one that it does not."""

    toml: str
    matching: Trace
    other: Trace | None
    reason: str


FAILED = make_trace(PlannedSpan("tool", status=SpanStatus.ERROR, span_type=SpanType.TOOL, tier="gold"))
FINE = make_trace(PlannedSpan("agent", seconds=0.1))

ROWS = {
    "always": Row("", FINE, None, "always"),
    "probabilistic": Row("probability = 0.5", FINE, None, "probabilistic: 50 % of all traces"),
    "status": Row('statuses = ["ERROR"]', FAILED, FINE, "status: 1 span with ERROR (first: tool)"),
    "latency": Row("min_ms = 500", FAILED, FINE, "latency: 1 s >= 500 ms"),
    "attribute": Row('key = "tier"\nequals = "gold"', FAILED, FINE, "attribute: tier = gold (span: tool)"),
    "and": Row(
        'policies = [{type = "status"}, {type = "always"}]',
        FAILED,
        FINE,
        "status: 1 span with ERROR (first: tool) and always",
    ),
    "or": Row(
        'policies = [{type = "latency", min_ms = 1e9}, {type = "status"}]',
        FAILED,
        FINE,
        "status: 1 span with ERROR (first: tool)",
    ),
    "not": Row('policies = [{type = "status"}]', FINE, FAILED, "not: status"),
    "drop": Row(
        'policies = [{type = "status"}]\nprobability = 0.5',
        FAILED,
        FINE,
        "drop: status: 1 span with ERROR (first: tool)",
    ),
}
"""By type; the test fails for a registered policy that has no row."""


def policy_of(kind: str) -> Condition:
    """The row's policy, by way of a policy file."""
    keeps_too = '\n[[policy]]\nname = "rest"\ntype = "always"\n'
    text = f'[[policy]]\nname = "it"\ntype = "{kind}"\n{ROWS[kind].toml}{keeps_too}'
    policy = load_policies(text, source="row").policies[0]
    assert isinstance(policy, POLICIES[kind])
    return policy


_VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
)
_SPANS = st.builds(
    PlannedSpan,
    st.text(max_size=5),
    status=st.sampled_from(SpanStatus),
    span_type=st.sampled_from(SpanType),
    start=st.floats(0, 1e6),
    seconds=st.none() | st.floats(0, 1e6),
    resource=st.builds(Resource, service_name=st.text(max_size=3)),
    tier=_VALUES | st.lists(_VALUES, max_size=2) | st.dictionaries(st.text(max_size=2), _VALUES, max_size=2),
)
TRACES = st.builds(
    lambda spans, trigger: make_trace(*spans, trigger=trigger),
    st.lists(_SPANS, min_size=1, max_size=4),
    st.sampled_from(Trigger),
)


def check_votes(policy: Condition, trace: Trace) -> None:
    """The promises that hold for any trace."""
    vote = policy.vote(trace)
    assert vote == policy.vote(trace)
    assert 0.0 <= vote.probability <= 1.0
    assert vote.matched or vote.probability == 0.0
    assert vote.reason
    assert vote.reason.isprintable()
    assert vote.matched or not policy.unconditional
    for randomness in (0, 2**56 - 1):
        drawn = [msgspec.structs.replace(head, randomness=randomness) for head in trace.heads]
        other = Trace(
            trace_id=b"\xff" * 16,
            heads=drawn,
            attributes=trace.attributes,
            resources=trace.resources,
            trigger=trace.trigger,
            complete=trace.complete,
        )
        assert policy.vote(other) == vote


def check_steps(policy: Condition, trace: Trace) -> None:
    """What is done in steps, as with a large trace, changes no vote."""
    vote = policy.vote(trace)
    for step in (1, 2, 3):
        results: dict[int, str | None] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conditions, "STEP", step)
            for _ in policy.prepare(trace, results):
                pass
        trace.prepared = results
        assert policy.vote(trace) == vote
        trace.prepared = {}


def check_reads(policy: Condition, trace: Trace) -> None:
    """Only declared attributes make a difference."""
    declared = [{key: value for key, value in found.items() if key in policy.reads} for found in trace.attributes]
    projected = Trace(
        trace_id=trace.trace_id,
        heads=trace.heads,
        attributes=declared,
        resources=trace.resources,
        trigger=trace.trigger,
        complete=trace.complete,
    )
    assert policy.vote(projected) == policy.vote(trace)
