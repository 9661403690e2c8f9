"""Trace contexts: their ids, and how they become current."""

from collections.abc import Iterator

import pytest

from prela_stream.model.span import COUNTED
from prela_stream.propagation.w3c import inject
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.context import attach, new_trace_context
from prela_stream.tracing.tracer import get_current_span, get_tracer


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


tracer = get_tracer()


def test_attach_makes_a_started_span_current_without_ending_it(captured: CapturedSpans) -> None:
    span = tracer.start_span("manual")
    assert get_current_span() is None
    with attach(span):
        assert get_current_span() is span
        with attach(None), tracer.span("elsewhere"):
            pass
    assert not span.is_ended
    span.end()
    assert captured.find("elsewhere").trace_id != span.trace_id


def test_new_trace_context_gives_its_id_to_the_roots_inside(captured: CapturedSpans) -> None:
    wanted = "0af7651916cd43dd8448eb211c80319c"
    with tracer.span("around"), new_trace_context(trace_id=wanted, baggage={"user": "7"}) as context:
        with tracer.span("inside") as span:
            assert span.context.get_baggage("user") == "7"
            context.set_baggage("tier", "gold")
            assert dict(span.context.baggage) == {"user": "7", "tier": "gold"}
        assert context.trace_id == wanted
    assert captured.find("inside").trace_id == wanted
    assert captured.find("inside").parent_span_id is None


def test_the_context_of_a_span_is_that_span_as_a_parent(captured: CapturedSpans) -> None:
    with tracer.span("request") as request, tracer.span("agent") as agent:
        pass
    open_span = tracer.start_span("open", parent=agent)
    with attach(open_span.context), tracer.span("attached"):
        assert tracer.get_current_span() is not open_span
    with attach(open_span.context):
        assert tracer.get_current_span() is open_span
    with tracer.span("named", parent=open_span.context):
        pass
    assert inject({}, open_span.context)["traceparent"] == f"00-{open_span.trace_id}-{open_span.span_id}-03"
    open_span.add_link(request.context)
    open_span.end()
    found = captured.find("open")
    for name in ("attached", "named"):
        assert (captured.find(name).parent_span_id, captured.find(name).flags) == (open_span.span_id, COUNTED)
    assert (found.child_count, found.inject_count) == (2, 1)
    assert [link.span_id.hex() for link in found.links] == [request.span_id]
    assert open_span.context == open_span.context != agent.context
    open_span.context.set_baggage("user", "7")
    assert request.context.get_baggage("user") == "7"
