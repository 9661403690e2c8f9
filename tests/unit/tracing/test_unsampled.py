"""Spans of traces that head sampling dropped."""

from prela_stream import telemetry
from prela_stream.testing import capture_spans
from prela_stream.tracing.context import attach
from prela_stream.tracing.sampler import (
    AlwaysOffSampler,
)
from prela_stream.tracing.tracer import get_current_span, get_tracer

tracer = get_tracer()


def test_unsampled_spans_keep_the_trace_together_hold_nothing_and_are_counted() -> None:
    before = telemetry.UNSAMPLED_SPANS.value()
    with capture_spans(sampler=AlwaysOffSampler()) as captured:
        with tracer.span("root", attributes={"a": 1}) as root:
            root.set_attribute("b", 2)
            root.add_event("e")
            with tracer.span("child") as child, tracer.span("grandchild") as grandchild:
                child.set_status("ERROR")
                assert grandchild.trace_id == root.trace_id
                assert not grandchild.sampled
                assert get_current_span() is root
            with attach(tracer.start_span("explicit", parent=root)) as _, tracer.span("below") as below:
                assert below.trace_id == root.trace_id
            assert get_current_span() is root
        assert get_current_span() is None
        assert not root.sampled
        assert captured.items == []
    assert telemetry.UNSAMPLED_SPANS.value() - before == 4  # root, child, grandchild, below; "explicit" has not ended
