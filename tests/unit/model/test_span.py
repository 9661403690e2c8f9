"""Spans as people read them, and the codes that the wire uses for their types and statuses."""

from datetime import UTC, datetime

from prela_stream.model import span as model
from prela_stream.model.span import SpanData, SpanEvent, SpanHead, SpanStatus, SpanType, to_datetime


def test_the_codes_of_the_wire_never_move() -> None:
    assert [kind.value for kind in model.SPAN_TYPES] == ["AGENT", "LLM", "TOOL", "RETRIEVAL", "EMBEDDING", "CUSTOM"]
    assert [status.value for status in model.SPAN_STATUSES] == ["PENDING", "SUCCESS", "ERROR", "CANCELLED"]
    named = (model.PENDING, model.SUCCESS, model.ERROR, model.CANCELLED)
    assert [model.SPAN_STATUSES[code].name for code in named] == ["PENDING", "SUCCESS", "ERROR", "CANCELLED"]
    assert [(kind.value, kind.name) for kind in model.ItemKind] == [
        (0, "SPAN"),
        (1, "START"),
        (2, "HEARTBEAT"),
        (3, "SUSPEND"),
        (4, "RESUME"),
        (5, "LOST"),
        (6, "TICK"),
    ]
    assert (model.COUNTED, model.AFTER_END, model.REMOTE_PARENT) == (1, 2, 4)
    assert model.SPAN_TYPES[SpanHead(0).span_type] is SpanType.CUSTOM


def test_every_span_type_but_custom_has_an_operation_name() -> None:
    assert set(model.OPERATION_NAMES) == set(SpanType) - {SpanType.CUSTOM}
    assert len(set(model.OPERATION_NAMES.values())) == len(model.OPERATION_NAMES)


def test_times_of_a_finished_and_of_an_open_span() -> None:
    done = SpanData(trace_id="0" * 32, span_id="0" * 16, name="a", start_ns=1_500_000_001_999, duration_ns=2_500_000)
    assert done.started_at == datetime(1970, 1, 1, 0, 25, 0, 1, tzinfo=UTC)
    assert (done.end_ns, done.duration_ms) == (1_500_002_501_999, 2.5)
    assert done.ended_at == datetime(1970, 1, 1, 0, 25, 0, 2501, tzinfo=UTC)
    still = SpanData(trace_id="0" * 32, span_id="0" * 16, name="a", start_ns=1)
    assert (still.end_ns, still.ended_at, still.duration_ms, still.status) == (None, None, None, SpanStatus.PENDING)
    assert SpanHead(0, start_ns=5, duration_ns=6).end_ns == 11
    assert SpanHead(0, start_ns=5).end_ns is None


def test_datetimes_are_cut_to_microseconds_and_never_rounded_up() -> None:
    assert to_datetime(999_999_999) == datetime(1970, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    assert to_datetime(2**63).year == 2262
    assert SpanEvent("e", 1_000_000_000).timestamp == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
