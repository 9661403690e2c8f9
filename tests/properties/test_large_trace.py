"""A trace that is built in steps is the same as one that is built at once."""

from collections.abc import Generator
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model import large_trace as module
from prela_stream.model.decision import Trigger
from prela_stream.model.large_trace import large_trace
from prela_stream.model.span import Resource, SpanHead
from prela_stream.model.trace import UNSAMPLED, Trace
from tests.properties.test_tree_properties import heads

T = TypeVar("T")
marked = st.builds(
    msgspec.structs.replace,
    heads,
    status=st.integers(0, 3),
    span_type=st.integers(0, 5),
    start_ns=st.sampled_from([0, 0, 1, 5_000_000, 9_000_000]),
    duration_ns=st.sampled_from([None, 0, 3_000_000]),
    randomness=st.none() | st.integers(0, 3),
    threshold=st.none() | st.integers(0, 3),
)
traces = st.lists(marked, min_size=1, max_size=14, unique_by=lambda head: head.span_id)
usages = st.dictionaries(
    st.sampled_from(["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "llm.prompt_tokens", "prela.cost.usd"]),
    st.none() | st.integers(-1, 9) | st.floats() | st.just("x"),
)


def taken(steps: Generator[None, None, T]) -> tuple[T, int]:
    """What the steps return, and how many there were."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result, count
        count += 1


@given(traces, st.data(), st.sampled_from([1, 2, 3, 1024]))
def test_steps_of_any_size_give_the_same_trace(spans: list[SpanHead], data: st.DataObject, size: int) -> None:
    given: dict[str, Any] = {
        "trace_id": bytes(range(16)),
        "heads": spans,
        "attributes": data.draw(st.lists(usages, min_size=len(spans), max_size=len(spans))),
        "resources": [Resource(service_name=str(number)) for number in range(len(spans))],
        "trigger": Trigger.COMPLETE,
        "complete": True,
    }
    expected = Trace(**given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP", size)
        trace, steps = taken(large_trace(**given))
    assert steps >= len(spans) // size
    for name in ("statuses", "errors", "start_ns", "duration_ns", "randomness", "heads", "attributes", "resources"):
        assert getattr(trace, name) == getattr(expected, name), name
    assert set(trace.head_thresholds) == set(expected.head_thresholds)
    assert (trace.head_thresholds is UNSAMPLED) == (expected.head_thresholds is UNSAMPLED)
    assert trace.summary(7) == expected.summary(7)
    assert [node.index for node in trace.tree.walk()] == [node.index for node in expected.tree.walk()]
    assert trace.tree.shape_hash() == expected.tree.shape_hash()


def test_no_step_visits_many_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP", 8)
    most: dict[str, int] = {}
    for shape in ("star", "chain", "roots", "orphans", "cycle"):
        spans = [
            SpanHead(
                kind=0,
                trace_id=bytes(16),
                span_id=number.to_bytes(8, "big"),
                parent_span_id=_parent(shape, number, 2_000),
                span_type=1,
                start_ns=1,
                name=str(number),
            )
            for number in range(2_000)
        ]
        _, steps = taken(
            large_trace(
                trace_id=bytes(16),
                heads=spans,
                attributes=[{"prela.cost.usd": number * 0.1} for number in range(2_000)],
                resources=[Resource()] * 2_000,
                trigger=Trigger.COMPLETE,
                complete=True,
            )
        )
        most[shape] = steps
    assert min(most.values()) > 6 * 2_000 // 8, most  # six stages visit each span


def _parent(shape: str, number: int, count: int) -> bytes | None:
    parents: dict[str, int | None] = {
        "star": 0 if number else None,
        "chain": number - 1 if number else None,
        "roots": None,
        "orphans": number + count,
        "cycle": (number - 1) % count,
    }
    found = parents[shape]
    return None if found is None else found.to_bytes(8, "big")
