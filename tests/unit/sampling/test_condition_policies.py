"""What each policy matches, with which words, and how sub-policies combine."""

import math
from typing import Any

import pytest

from prela_stream.model.decision import Trigger
from prela_stream.model.span import Resource, SpanStatus, SpanType
from prela_stream.sampling.algebra import And, Not, Or
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.conditions import Condition, duration
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.latency import Latency
from prela_stream.sampling.share import Always, Probabilistic
from prela_stream.sampling.status import Status
from tests.unit.sampling.traces import PlannedSpan, make_trace

ERROR, CANCELLED = SpanStatus.ERROR, SpanStatus.CANCELLED
LLM, TOOL = SpanType.LLM, SpanType.TOOL
FAILED = make_trace(
    PlannedSpan("agent"), PlannedSpan("tool.search", status=ERROR, span_type=TOOL), PlannedSpan("late", status=ERROR)
)
FINE = make_trace(PlannedSpan("agent"), PlannedSpan("chat", span_type=LLM))


def reason_of(policy: Condition, *spans: PlannedSpan) -> str | None:
    vote = policy.vote(make_trace(*spans))
    return vote.reason if vote.matched else None


def test_always_matches_and_probabilistic_says_its_share() -> None:
    always, tenth = Always().vote(FINE), Probabilistic(probability=0.1).vote(FINE)
    assert (always.matched, always.probability, always.reason) == (True, 1.0, "always")
    assert (tenth.matched, tenth.probability, tenth.reason) == (True, 0.1, "probabilistic: 10 % of all traces")


def test_status_counts_and_names_the_first() -> None:
    assert Status().vote(FAILED).reason == "status: 2 spans with ERROR (first: tool.search)"
    assert Status(span_type=TOOL).vote(FAILED).reason == "status: 1 span with ERROR (first: tool.search)"
    assert not Status().vote(FINE).matched
    assert not Status(span_type=LLM).vote(FAILED).matched
    both = Status(statuses=(CANCELLED, ERROR))
    assert both.vote(FAILED).reason == "status: 2 spans with CANCELLED or ERROR (first: tool.search)"


def test_a_trace_whose_process_died_is_an_error() -> None:
    spans = [PlannedSpan("agent", status=SpanStatus.PENDING, seconds=None), PlannedSpan("done")]
    died = make_trace(*spans, trigger=Trigger.LOST, complete=False)
    idle = make_trace(*spans, trigger=Trigger.IDLE, complete=False)
    assert Status().vote(died).reason == "status: its process died with 1 span open (first: agent)"
    assert not Status().vote(idle).matched
    assert not Status(statuses=(CANCELLED,)).vote(died).matched


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [
        (29.999999, None),
        (30.0, "latency: 30 s >= 30 s"),
        (42.1, "latency: 42.1 s >= 30 s"),
        (7300, "latency: 2.03 h >= 30 s"),
    ],
)
def test_latency_is_the_duration_of_the_root(seconds: float, reason: str | None) -> None:
    spans = [PlannedSpan(seconds=seconds), PlannedSpan(start=-40, seconds=1), PlannedSpan(start=90_000, seconds=1)]
    assert reason_of(Latency(min_ms=30_000), *spans) == reason


def test_latency_with_an_upper_limit() -> None:
    policy = Latency(min_ms=500, max_ms=2000)
    assert reason_of(policy, PlannedSpan(seconds=1.5)) == "latency: 1.5 s >= 500 ms and < 2 s"
    assert reason_of(policy, PlannedSpan(seconds=2.0)) is None


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (0.5, "0.5 ms"),
        (999.9, "1,000 ms"),
        (1000, "1 s"),
        (119_900, "120 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (1e15, "277,777,778 h"),
    ],
)
def test_durations_read_well(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("settings", "value", "test"),
    [
        ({"equals": "gold"}, "gold", "= gold"),
        ({"equals": "gold"}, "golden", None),
        ({"equals": True}, True, "= True"),
        ({"equals": True}, 1, None),
        ({"equals": 1}, True, None),
        ({"equals": 1}, 1.0, "= 1.0"),
        ({"equals": False}, False, "= False"),
        ({"equals": "a"}, ["b", "a"], "= a"),
        ({"one_of": ("a", "b")}, "b", "= b"),
        ({"one_of": ("a", "b")}, ["x", "b"], "= b"),
        ({"one_of": ("1",)}, 1, None),
        ({"regex": "^time.?out"}, "timeout after 3 s", "matches ^time.?out with timeout"),
        ({"regex": "out$"}, "timeout after 3 s", None),
        ({"regex": "3"}, 3, None),
        ({"regex": "x"}, "y" * 70_000 + "x", None),
        ({"min": 5}, 5, "= 5, which is >= 5"),
        ({"min": 5, "max": 6.5}, 6.5, "= 6.5, which is >= 5 and <= 6.5"),
        ({"max": 6}, 7, None),
        ({"min": 0}, True, None),
        ({"min": 0}, "5", None),
        ({"min": 0}, math.nan, None),
        ({"min": -1}, [-5, 2], "= 2, which is >= -1"),
        ({"exists": True}, "", "exists"),
        ({"exists": True}, [], "exists"),
        ({"exists": True}, None, None),
        ({"exists": True}, 0, "exists"),
    ],
)
def test_tests_of_an_attribute(settings: dict[str, Any], value: Any, test: str | None) -> None:
    policy = Attribute(key="tier", **settings)
    expected = None if test is None else f"attribute: tier {test} (span: second)"
    assert reason_of(policy, PlannedSpan("first"), PlannedSpan("second", tier=value)) == expected


def test_an_attribute_that_is_nowhere() -> None:
    policy = Attribute(key="user.id", exists=False)
    assert reason_of(policy, PlannedSpan(), PlannedSpan()) == "attribute: user.id is nowhere"
    assert reason_of(policy, PlannedSpan(), PlannedSpan(attributes={"user.id": "u1"})) is None


def test_an_attribute_is_read_under_all_its_spellings() -> None:
    policy = Attribute(key="gen_ai.request.model", regex="opus")
    assert "llm.model_name" in policy.reads
    assert "gen_ai.request.model" in policy.reads
    assert reason_of(policy, PlannedSpan(attributes={"llm.model_name": "claude-opus"})) is not None


def test_an_attribute_of_one_span_type_only() -> None:
    policy = Attribute(key="k", equals="v", span_type=LLM)
    assert reason_of(policy, PlannedSpan(k="v")) is None
    assert reason_of(policy, PlannedSpan("chat", span_type=LLM, k="v")) == "attribute: k = v (span: chat)"


@pytest.mark.parametrize(
    ("key", "value"), [("service.name", "shop"), ("process.pid", 7), ("cloud.region", "eu"), ("host.name", None)]
)
def test_an_attribute_of_the_resource(key: str, value: Any) -> None:
    resource = Resource(service_name="shop", pid=7, attributes={"cloud.region": "eu"})
    policy = Attribute(key=key, on="resource", **({"exists": False} if value is None else {"equals": value}))
    assert policy.reads == frozenset()
    expected = f"attribute: {key} " + ("is nowhere" if value is None else f"= {value} (resource)")
    assert reason_of(policy, PlannedSpan(attributes={key: "elsewhere"}, resource=resource)) == expected


def test_reasons_stay_short_and_hold_no_control_characters() -> None:
    reason = reason_of(
        Attribute(key="k", exists=None, min=None, regex="(?s).*"), PlannedSpan(k="\x1b[31m" + "x" * 1000)
    )
    assert reason is not None
    assert len(reason) < 200
    assert reason.isprintable()


def test_and_keeps_with_the_least_probability() -> None:
    both = And(policies=(Status(probability=0.5), Attribute(key="k", exists=True, probability=0.2)))
    vote = both.vote(make_trace(PlannedSpan("a", status=ERROR, k=1)))
    assert (vote.matched, vote.probability) == (True, 0.2)
    assert vote.reason == "status: 1 span with ERROR (first: a) and attribute: k exists (span: a)"
    assert not both.vote(make_trace(PlannedSpan("a", status=ERROR))).matched
    assert And(policies=(Always(),), probability=0.3).vote(FINE).probability == 0.3


def test_or_keeps_with_the_highest_probability_of_those_that_match() -> None:
    either = Or(policies=(Status(probability=0.9), Latency(min_ms=0, probability=0.2), Always(probability=0.2)))
    assert either.vote(FAILED).probability == 0.9
    vote = either.vote(FINE)
    assert (vote.matched, vote.probability, vote.reason) == (True, 0.2, "latency: 1 s >= 0 ms")
    assert not Or(policies=(Status(), Latency(min_ms=1e9))).vote(FINE).matched


def test_not_matches_what_no_sub_policy_wants() -> None:
    policy = Not(policies=(Status(), Latency(name="slow", min_ms=30_000)), probability=0.25)
    vote = policy.vote(FINE)
    assert (vote.matched, vote.probability, vote.reason) == (True, 0.25, "not: status or slow")
    assert not policy.vote(FAILED).matched
    assert Not(policies=(Always(probability=0.0),)).vote(FINE).matched


def test_drop_leaves_what_its_sub_policies_do_not_take() -> None:
    policy = Drop(policies=(Attribute(key="k", exists=True), Always()), probability=0.75)
    vote = policy.vote(make_trace(PlannedSpan("a", k=1)))
    assert (vote.matched, vote.probability) == (True, 0.25)
    assert vote.reason == "drop: attribute: k exists (span: a) and always"
    assert not policy.vote(FINE).matched
