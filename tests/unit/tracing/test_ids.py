"""Ids of traces from any text."""

import pytest

from prela_stream.tracing.context import new_trace_context
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0AF7651916CD43DD8448EB211C80319C", "0af7651916cd43dd8448eb211c80319c"),
        ("0af76519-16cd-43dd-8448-eb211c80319c", "0af7651916cd43dd8448eb211c80319c"),
    ],
)
def test_trace_ids_of_the_ancestor_are_understood(text: str, expected: str) -> None:
    with new_trace_context(trace_id=text) as context:
        assert context.trace_id == expected


def test_a_trace_id_that_is_no_hex_is_hashed_the_same_way_each_time() -> None:
    with new_trace_context(trace_id="request-17") as first, new_trace_context(trace_id="request-17") as second:
        assert first.trace_id == second.trace_id
        assert len(first.trace_id) == 32
