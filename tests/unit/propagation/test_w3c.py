"""W3C headers are written and read, and hostile ones have no effect."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.model.decision import threshold_of
from prela_stream.model.span import REMOTE_PARENT
from prela_stream.propagation.w3c import extract, inject
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.context import TraceContext, attach, new_trace_context
from prela_stream.tracing.sampler import AlwaysOffSampler, ProbabilitySampler
from prela_stream.tracing.tracer import get_tracer
from tests.support.examples import examples
from tests.unit.propagation.remote import PARENT, SPAN_ID, TRACE_ID

tracer = get_tracer()


def test_each_inject_has_its_ordinal_and_the_span_counts_them(captured: CapturedSpans) -> None:
    with tracer.span("root") as root:
        with tracer.span("local"):
            pass
        carriers = [inject({}) for _ in range(3)]
    for carrier in carriers:
        with attach(extract(carrier)), tracer.span("remote"), tracer.span("below"):
            pass
    assert (captured.find("root").inject_count, captured.find("root").child_count) == (3, 1)
    remotes = captured.named("remote")
    assert [span.inject_ordinal for span in remotes] == [0, 1, 2]
    assert {(span.trace_id, span.parent_span_id, span.flags) for span in remotes} == {
        (root.trace_id, root.span_id, REMOTE_PARENT)
    }
    assert {span.inject_ordinal for span in captured.named("below")} == {None}


def test_headers_follow_w3c(captured: CapturedSpans) -> None:
    with new_trace_context(trace_id=TRACE_ID, baggage={"user": "Zoë, 7;", "tier": "gold"}), tracer.span("x") as span:
        carrier = inject({"other": "kept"})
    assert carrier == {
        "other": "kept",
        "traceparent": f"00-{TRACE_ID}-{span.span_id}-01",
        "tracestate": f"prela={span.span_id}-0",
        "baggage": "user=Zo%C3%AB%2C%207%3B,tier=gold",
    }
    context = extract(carrier)
    assert context is not None
    assert dict(context.baggage) == {"user": "Zoë, 7;", "tier": "gold"}
    with tracer.span("own id") as own:
        assert inject({})["traceparent"] == f"00-{own.trace_id}-{own.span_id}-03"  # random: level 2


def test_an_ended_span_counts_no_more_injects(captured: CapturedSpans) -> None:
    with tracer.span("x") as span:
        pass
    assert inject({}, span) == {"traceparent": f"00-{span.trace_id}-{span.span_id}-03"}
    assert captured.find("x").inject_count == 0


def test_the_prela_member_counts_only_for_the_span_it_names() -> None:
    # a process without this SDK forwarded tracestate unchanged, below its own span
    context = extract({"traceparent": PARENT, "tracestate": "prela=00f067aa0ba902b7-3,congo=t61"})
    assert context is not None
    assert context.inject_ordinal is None
    assert context.tracestate == (("congo", "t61"),)
    context = extract({"traceparent": PARENT, "tracestate": f"congo=t61,prela={SPAN_ID}-3"})
    assert context is not None
    assert context.inject_ordinal == 3


def test_without_the_prela_member_the_span_is_a_local_root(captured: CapturedSpans) -> None:
    with tracer.span("x", parent=extract({"traceparent": PARENT})):
        pass
    data = captured.find("x")
    assert (data.parent_span_id, data.flags, data.inject_ordinal) == (SPAN_ID, REMOTE_PARENT, None)


def test_head_sampling_travels(captured: CapturedSpans) -> None:
    del captured
    with capture_spans(sampler=ProbabilitySampler(0.5)) as spans:
        with new_trace_context(trace_id="f" * 32, sampled=None), tracer.span("up") as up:
            carrier = inject({})
        assert carrier["tracestate"] == f"prela={up.span_id}-0,ot=th:8"
        with attach(extract(carrier)), tracer.span("down"):
            onward = inject({})
    assert spans.find("down").threshold == threshold_of(0.5)
    assert "ot=th:8" in onward["tracestate"]


def test_an_unsampled_trace_is_propagated_as_such() -> None:
    with capture_spans(sampler=AlwaysOffSampler()) as spans:
        with tracer.span("up") as up, tracer.span("inside"):
            carrier = inject({})
        assert carrier == {"traceparent": f"00-{up.trace_id}-{up.span_id}-02"}
        with attach(extract(carrier)), tracer.span("down") as down:
            assert not down.sampled
            assert inject({})["traceparent"] == f"00-{up.trace_id}-{down.span_id}-02"
    assert spans.items == []


def test_explicit_randomness_and_other_vendors_are_forwarded(captured: CapturedSpans) -> None:
    given = "congo=t61,ot=rv:0123456789abcd;th:c;p:8,rojo=1"
    with attach(extract({"traceparent": PARENT, "tracestate": given})), tracer.span("x") as span:
        carrier = inject({})
    assert carrier["tracestate"] == f"prela={span.span_id}-0,ot=th:c;rv:0123456789abcd;p:8,congo=t61,rojo=1"
    assert captured.find("x").randomness == 0x0123456789ABCD
    assert captured.find("x").threshold == 0xC0000000000000


def test_a_context_without_a_local_span_is_forwarded_unchanged() -> None:
    headers = {"traceparent": PARENT, "tracestate": f"prela={SPAN_ID}-3,congo=t61", "baggage": "a=b"}
    with attach(extract(headers)):
        assert inject({}) == headers


def test_baggage_without_a_trace_goes_into_a_new_one() -> None:
    with (
        capture_spans() as captured,
        attach(extract({"baggage": "a=1;ttl=5, b = 2 ,bad key=3,c"})),
        tracer.span("x") as span,
    ):
        assert dict(span.context.baggage) == {"a": "1", "b": "2"}
    assert captured.find("x").parent_span_id is None


@pytest.mark.parametrize(
    "carrier",
    [
        {"Traceparent": PARENT},
        {b"TRACEPARENT": PARENT.encode()},
        {"traceparent": [PARENT]},
        {"traceparent": f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-brings"},
        {"traceparent": f" {PARENT}\t"},
    ],
)
def test_carriers_of_every_kind(carrier: Mapping[Any, Any]) -> None:
    context = extract(carrier)
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled) == (TRACE_ID, SPAN_ID, True)


@pytest.mark.parametrize(
    "traceparent",
    [
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n",
        f"{PARENT},{PARENT}",
        "",
        [PARENT, PARENT],
        None,
        7,
    ],
)
def test_an_invalid_traceparent_counts_as_absent(traceparent: object) -> None:
    assert extract({"traceparent": traceparent}) is None


junk = st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.lists(st.text(), max_size=3))
vendor = st.text(st.characters(codec="ascii"), max_size=60)


@given(
    parent=st.one_of(junk, st.just(PARENT)),
    state=st.one_of(junk, st.lists(vendor, max_size=40).map(",".join), vendor.map("ot=".__add__)),
    baggage=st.one_of(junk, vendor),
)
@examples(200)
def test_no_header_raises_and_what_is_written_can_be_read(parent: Any, state: Any, baggage: Any) -> None:
    with capture_spans() as captured:
        with (
            attach(extract({"traceparent": parent, "tracestate": state, "baggage": baggage})),
            tracer.span("x") as span,
        ):
            carrier = inject({})
        assert len(captured.spans) == 1
    assert len(carrier["tracestate"]) <= 512
    again = extract(carrier)
    assert again is not None
    assert (again.trace_id, again.span_id, again.inject_ordinal) == (span.trace_id, span.span_id, 0)
    assert (again.threshold, again.randomness) == (span.context.threshold, span.context.randomness)
    assert again.baggage == span.context.baggage


@pytest.mark.parametrize("carrier", [None, 7, "text", [], [("a",)], object()])
def test_an_object_that_is_no_carrier_does_not_raise(carrier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    assert extract(carrier) is None
    with tracer.span("x"):
        assert inject(carrier) is carrier


def test_a_parent_can_be_given(captured: CapturedSpans) -> None:
    span = tracer.start_span("manual")
    assert inject({}, span)["traceparent"].split("-")[2] == span.span_id
    assert inject({}) == {}
    assert inject({}, TraceContext()) == {}
