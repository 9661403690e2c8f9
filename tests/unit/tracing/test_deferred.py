"""Counted children that start later."""

from collections.abc import Iterator

import pytest

from prela_stream.model.span import AFTER_END, COUNTED, SpanType
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.tracer import defer, get_tracer

tracer = get_tracer()


@pytest.fixture(autouse=True)
def not_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


def test_deferred_child_is_counted_although_it_starts_after_the_end(captured: CapturedSpans) -> None:
    with tracer.span("parent"):
        deferred = defer()
    with deferred.span("later", SpanType.TOOL):
        pass
    with tracer.span("again", parent=deferred):
        pass
    assert captured.find("parent").child_count == 1
    assert captured.find("later").flags == COUNTED
    assert captured.find("again").flags == AFTER_END
    assert {captured.find(name).parent_span_id for name in ("later", "again")} == {captured.find("parent").span_id}


def test_deferred_work_that_is_cancelled_leaves_the_trace_whole(captured: CapturedSpans) -> None:
    with tracer.span("parent"):
        deferred = defer()
    deferred.cancel()
    deferred.cancel()
    assert_tree(captured.spans, "parent\n  deferred work CANCELLED")
    assert captured.find("parent").child_count == 1


def test_deferred_without_a_current_span_begins_a_trace(captured: CapturedSpans) -> None:
    with defer().span("alone"):
        pass
    assert captured.find("alone").parent_span_id is None
