"""The contract of policies, over every policy that is registered."""

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream import sampling
from prela_stream.model.decision import Trigger
from prela_stream.model.span import Resource, SpanStatus, SpanType
from prela_stream.model.trace import Trace
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.registry import POLICIES
from prela_stream.sampling.status import Status
from tests.contracts.policy_contract import ROWS, TRACES, check_reads, check_steps, check_votes, policy_of
from tests.support.examples import examples
from tests.unit.sampling.traces import PlannedSpan, make_trace

KINDS = sorted(POLICIES)


def test_every_registered_policy_has_a_row() -> None:
    assert ROWS.keys() == POLICIES.keys(), "a row in tests/contracts/policy_contract.py is missing"


def test_every_policy_is_registered() -> None:
    for module in pkgutil.iter_modules(sampling.__path__):
        importlib.import_module(f"{sampling.__name__}.{module.name}")
    missing = [
        cls.__name__ for cls in subclasses(Condition) if cls.__struct_config__.tag and cls not in POLICIES.values()
    ]
    assert missing == [], "a line in prela_stream/sampling/registry.py is missing"


def subclasses(cls: type[Condition]) -> Iterator[type[Condition]]:
    """All classes below this one that the package defines."""
    for below in cls.__subclasses__():
        if below.__module__.startswith(sampling.__name__):
            yield below
        yield from subclasses(below)


@pytest.mark.parametrize("kind", KINDS)
def test_it_matches_what_it_is_for_and_says_why(kind: str) -> None:
    row, policy = ROWS[kind], policy_of(kind)
    assert (policy.name, policy.type) == ("it", kind)
    vote = policy.vote(row.matching)
    assert (vote.matched, vote.reason) == (True, row.reason)
    if row.other is None:
        assert policy.unconditional
    else:
        assert not policy.vote(row.other).matched


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_its_promises_for_any_trace(kind: str) -> None:
    policy = policy_of(kind)

    @examples(40)
    @given(TRACES)
    def check(trace: Trace) -> None:
        check_votes(policy, trace)
        check_reads(policy, trace)
        check_steps(policy, trace)

    check()


SOME_STATUSES = st.builds(
    PlannedSpan,
    status=st.sampled_from((SpanStatus.SUCCESS, SpanStatus.PENDING, SpanStatus.ERROR, SpanStatus.CANCELLED)),
    span_type=st.sampled_from((SpanType.LLM, SpanType.TOOL)),
)
FEW_VALUES = st.builds(
    PlannedSpan,
    span_type=st.sampled_from((SpanType.LLM, SpanType.TOOL)),
    resource=st.builds(Resource, service_name=st.sampled_from(("", "b", "ab"))),
    tier=st.sampled_from((None, "", "b", "ab", -1, 1.5, True, ["c", "b"], ["c", 2])),
)


@pytest.mark.parametrize(
    "test",
    [{"equals": "b"}, {"one_of": ("b", "x")}, {"regex": "^.?$"}, {"min": 0.0}, {"exists": True}, {"exists": False}],
)
@pytest.mark.parametrize("where", [{}, {"span_type": SpanType.LLM}, {"on": "resource", "key": "service.name"}])
def test_attributes_of_many_spans_give_the_same_vote_in_steps(where: dict[str, Any], test: dict[str, Any]) -> None:
    policy = Attribute(**{"key": "tier", **where, **test})
    matched = set()

    @examples(200)
    @given(st.lists(FEW_VALUES, min_size=1, max_size=6))
    def check(spans: list[PlannedSpan]) -> None:
        trace = make_trace(*spans)
        check_steps(policy, trace)
        matched.add(policy.vote(trace).matched)

    check()
    assert matched == ({False} if policy.on == "resource" and policy.min is not None else {True, False})


@pytest.mark.parametrize("span_type", [None, SpanType.LLM])
@pytest.mark.parametrize("trigger", [Trigger.COMPLETE, Trigger.LOST])
def test_statuses_of_many_spans_give_the_same_vote_in_steps(span_type: SpanType | None, trigger: Trigger) -> None:
    policy = Status(statuses=(SpanStatus.ERROR, SpanStatus.CANCELLED), span_type=span_type)
    reasons = set()

    @examples(200)
    @given(st.lists(SOME_STATUSES, min_size=1, max_size=6))
    def check(spans: list[PlannedSpan]) -> None:
        trace = make_trace(*spans, trigger=trigger)
        check_steps(policy, trace)
        reasons.add(policy.vote(trace).reason)

    check()
    assert len(reasons) > 2


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_gives_the_same_votes(kind: str, duplicate: Callable[[Condition], Condition]) -> None:
    row, policy = ROWS[kind], policy_of(kind)
    again = duplicate(policy)
    assert (again, again.vote(row.matching)) == (policy, policy.vote(row.matching))
