"""Headers in the shapes of HTTP servers, HTTP clients and Kafka clients."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.propagation.w3c import extract, inject, inject_asgi, inject_kafka
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.context import attach
from prela_stream.tracing.tracer import get_tracer
from tests.support.examples import examples
from tests.unit.propagation.remote import PARENT, SPAN_ID

tracer = get_tracer()


def test_asgi_headers_there_and_back(captured: CapturedSpans) -> None:
    with tracer.span("up") as up:
        headers = inject_asgi([(b"accept", b"*/*"), (b"Traceparent", b"stale"), (b"tracestate", b"stale=1")])
    assert headers[0] == (b"accept", b"*/*")
    assert [name for name, _ in headers] == [b"accept", b"traceparent", b"tracestate"]
    assert all(type(name) is bytes and type(value) is bytes for name, value in headers)
    with attach(extract(headers)), tracer.span("down"):
        pass
    down = captured.find("down")
    assert (down.trace_id, down.parent_span_id, down.inject_ordinal) == (up.trace_id, up.span_id, 0)


def test_kafka_headers_there_and_back(captured: CapturedSpans) -> None:
    with tracer.span("up") as up:
        headers = inject_kafka([("kind", b"order"), ("traceparent", b"stale")])
    assert [name for name, _ in headers] == ["kind", "traceparent", "tracestate"]
    assert all(type(name) is str and type(value) is bytes for name, value in headers)
    with attach(extract(headers)), tracer.span("down"):
        pass
    assert (captured.find("down").parent_span_id, captured.find("down").inject_ordinal) == (up.span_id, 0)


def test_a_mapping_that_holds_a_forwarded_header_in_another_case(captured: CapturedSpans) -> None:
    with tracer.span("up") as up:
        carrier = inject({"Traceparent": PARENT, "TRACESTATE": "a=1", "Other": "kept"})
    assert set(carrier) == {"Other", "traceparent", "tracestate"}
    context = extract(carrier)
    assert context is not None
    assert context.span_id == up.span_id


def test_where_nothing_is_current_headers_stay_as_they_are() -> None:
    with attach(None):
        assert inject_kafka([("traceparent", PARENT.encode())]) == [("traceparent", PARENT.encode())]
        assert inject_asgi([]) == []


def test_several_members_in_several_headers_are_one_list_and_several_parents_none() -> None:
    context = extract([(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"TraceState", b"b=2,ot=th:8")])
    assert context is not None
    assert (context.tracestate, context.threshold) == ((("a", "1"), ("b", "2")), 1 << 55)
    assert extract([("traceparent", PARENT), ("Traceparent", PARENT)]) is None
    context = extract(iter([("baggage", "a=1"), ("baggage", b"b=2")]))
    assert context is not None
    assert dict(context.baggage) == {"a": "1", "b": "2"}


def test_headers_of_httpx_and_starlette() -> None:
    import httpx2
    from starlette.datastructures import Headers

    pairs = [("Traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]
    for headers in (httpx2.Headers(pairs), Headers(raw=[(k.lower().encode(), v.encode()) for k, v in pairs])):
        context = extract(headers)
        assert context is not None
        assert context.span_id == SPAN_ID
        assert context.tracestate == (("a", "1"), ("b", "2"))


@pytest.mark.parametrize(
    "carrier", [b"bytes", 3, [1], [()], [("traceparent",)], {1, 2}, [(None, None)], [("traceparent", object())], "tr"]
)
@pytest.mark.parametrize("call", [extract, inject, inject_asgi, inject_kafka])
def test_no_shape_of_carrier_raises(call: Any, carrier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    with attach(None) if call is extract else tracer.span("x"):
        call(carrier)


name = st.one_of(st.sampled_from(["traceparent", b"tracestate", "Baggage"]), st.text(max_size=5), st.binary(max_size=5))
value = st.one_of(
    st.just(PARENT), st.text(max_size=40), st.binary(max_size=40), st.none(), st.lists(st.text(max_size=5))
)


@given(st.lists(st.tuples(name, value), max_size=8))
@examples(200)
def test_no_header_makes_anything_raise_and_ours_replace_it(pairs: list[tuple[Any, Any]]) -> None:
    with capture_spans() as captured:
        with attach(extract(pairs)), tracer.span("up") as up:
            headers = inject_kafka(pairs)
        again = extract(headers)
        assert again is not None
        assert (again.trace_id, again.span_id, again.inject_ordinal) == (up.trace_id, up.span_id, 0)
        assert captured.find("up").inject_count == 1
