"""Each file format gives the same tree, and a bad part costs no other."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.errors import CodecError
from prela_stream.model.span import SpanType
from prela_stream.otel.files.formats import read_text
from prela_stream.otel.normaliser import normalise
from prela_stream.otel.spans import ForeignSpan, Rejected

TRACE = "5b8efff798038103d269b633813fc60c"
ROOT, CHILD = "00000000000000a1", "00000000000000a2"
START = 1_700_000_000_000_000_000


def otlp_span(span_id: str, parent: str | None, **more: Any) -> dict[str, Any]:
    """A span of OTLP JSON that took one second."""
    return {
        "traceId": TRACE,
        "spanId": span_id,
        "parentSpanId": parent,
        "name": span_id,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 10**9),
        **more,
    }


def otlp(*spans: dict[str, Any], scopes: str = "scopeSpans") -> dict[str, Any]:
    """A request."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, scopes: [{"scope": {"name": "lib"}, "spans": list(spans)}]}]}


def bare(span: dict[str, Any]) -> dict[str, Any]:
    """A span without a request around it."""
    return {**span, "resource": {"attributes": {"service.name": "shop"}}}


BOTH = (otlp_span(ROOT, ""), otlp_span(CHILD, ROOT))
FILES: dict[str, str] = {
    "one request": json.dumps(otlp(*BOTH)),
    "a list of requests": json.dumps([otlp(BOTH[0]), otlp(BOTH[1])]),
    "one request a line": "\n".join(json.dumps(otlp(span)) for span in BOTH),
    "batches": json.dumps({"batches": otlp(*BOTH)["resourceSpans"]}),
    "a result": json.dumps({"result": otlp(*BOTH)}),
    "a list of spans": json.dumps([bare(span) for span in BOTH]),
    "one span a line": "\n".join(json.dumps(bare(span)) for span in BOTH),
    "spans below a key": json.dumps({"spans": list(BOTH), "resource": {"attributes": {"service.name": "shop"}}}),
    "snake case": json.dumps(
        [
            {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): value for key, value in bare(span).items()}
            for span in BOTH
        ]
    ),
    "documents one after the other": "\n".join(json.dumps(otlp(span), indent=2) for span in BOTH),
    "a byte order mark": "\ufeff" + json.dumps(otlp(*BOTH)),
    "the older name of scopes": json.dumps(otlp(*BOTH, scopes="instrumentationLibrarySpans")),
    "Jaeger": json.dumps(
        {
            "data": [
                {
                    "traceID": TRACE,
                    "processes": {"p1": {"serviceName": "shop"}},
                    "spans": [
                        {
                            "traceID": TRACE,
                            "spanID": one,
                            "operationName": one,
                            "references": [{"refType": "CHILD_OF", "traceID": TRACE, "spanID": ROOT}]
                            if one == CHILD
                            else [],
                            "startTime": START // 1000,
                            "duration": 1_000_000,
                            "processID": "p1",
                        }
                        for one in (CHILD, ROOT)
                    ],
                }
            ]
        }
    ),
    "Zipkin": json.dumps(
        [
            {
                "traceId": TRACE,
                "id": one,
                "parentId": ROOT if one == CHILD else None,
                "name": one,
                "timestamp": START // 1000,
                "duration": 1_000_000,
                "localEndpoint": {"serviceName": "shop"},
            }
            for one in (ROOT, CHILD)
        ]
    ),
    "Zipkin, one span a line": "\n".join(
        json.dumps(
            {
                "traceId": TRACE,
                "id": one,
                **({"parentId": ROOT} if one == CHILD else {}),
                "name": one,
                "timestamp": START // 1000,
                "duration": 1_000_000,
                "localEndpoint": {"serviceName": "shop"},
            }
        )
        for one in (ROOT, CHILD)
    ),
    "Jaeger, one span a line": "\n".join(
        json.dumps(
            {
                "traceID": TRACE,
                "spanID": one,
                "parentSpanID": ROOT if one == CHILD else "",
                "operationName": one,
                "startTime": START // 1000,
                "duration": 1_000_000,
                "process": {"serviceName": "shop"},
            }
        )
        for one in (ROOT, CHILD)
    ),
    "Langfuse": json.dumps(
        {
            "trace": {"id": TRACE, "name": "run"},
            "observations": [
                {
                    "id": one,
                    "traceId": TRACE,
                    "type": "SPAN",
                    "name": one,
                    "parentObservationId": ROOT if one == CHILD else None,
                    "startTime": "2023-11-14T22:13:20Z",
                    "endTime": "2023-11-14T22:13:21Z",
                    "metadata": json.dumps({"resourceAttributes": {"service.name": "shop"}}),
                }
                for one in (ROOT, CHILD)
            ],
        }
    ),
    "Python SDK": json.dumps(
        [
            {
                "name": one,
                "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{one}", "trace_state": "[]"},
                "kind": "SpanKind.INTERNAL",
                "parent_id": f"0x{ROOT}" if one == CHILD else None,
                "start_time": "2023-11-14T22:13:20.000000Z",
                "end_time": "2023-11-14T22:13:21.000000Z",
                "status": {"status_code": "UNSET"},
                "attributes": {},
                "resource": {"attributes": {"service.name": "shop"}},
            }
            for one in (ROOT, CHILD)
        ]
    ),
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_the_same_tree_from_any_format(text: str) -> None:
    spans = {one.span_id.hex(): one for one in read_text(text.encode()) if isinstance(one, ForeignSpan)}
    assert set(spans) == {ROOT, CHILD}
    for span_id, span in spans.items():
        assert span.trace_id.hex() == TRACE
        assert span.name == span_id
        assert span.resource["service.name"] == "shop"
        assert span.start_ns == START
        assert span.end_ns == START + 10**9
    assert spans[ROOT].parent_span_id is None
    assert spans[CHILD].parent_span_id == bytes.fromhex(ROOT)


def test_a_bad_span_is_rejected_with_its_place_and_its_neighbour_is_read() -> None:
    document = otlp(otlp_span("not an id", None), BOTH[0])
    bad, good = read_text(json.dumps(document).encode())
    assert isinstance(bad, Rejected)
    assert bad.place == "$.resourceSpans.scopeSpans[0].spans[0]" or "spans[0]" in bad.place
    assert "span id" in bad.reason
    assert isinstance(good, ForeignSpan)


def test_a_bad_line_is_rejected_with_its_number() -> None:
    bad, good = read_text(b"{broken\n" + json.dumps(otlp(BOTH[0])).encode())
    assert isinstance(bad, Rejected)
    assert bad.place == "line 1"
    assert isinstance(good, ForeignSpan)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"[]", b"{}", b"[1, 2]", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}\n{"b": 2}']
)
def test_what_is_no_trace_gets_one_sentence(data: bytes) -> None:
    with pytest.raises(CodecError) as raised:
        list(read_text(data))
    assert "expected" in str(raised.value) or "JSON" in str(raised.value) or "known format" in str(raised.value)


def test_values_of_every_kind() -> None:
    attributes = [
        {"key": "text", "value": {"stringValue": "a"}},
        {"key": "whole", "value": {"intValue": "-9007199254740993"}},
        {"key": "number", "value": {"doubleValue": "NaN"}},
        {"key": "yes", "value": {"boolValue": True}},
        {"key": "bytes", "value": {"bytesValue": "AAAwOQ=="}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 1}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}},
        {"key": "empty", "value": {}},
    ]
    (span,) = read_text(json.dumps(otlp(otlp_span(ROOT, None, attributes=attributes))).encode())
    assert isinstance(span, ForeignSpan)
    assert span.attributes == {
        "text": "a",
        "whole": -9007199254740993,
        "number": "NaN",
        "yes": True,
        "bytes": b"\x00\x000\x39",
        "list": [1],
        "map": {"k": "v"},
        "empty": None,
    }


def zipkin(span_id: str, kind: str, service: str, **more: Any) -> dict[str, Any]:
    """A span of Zipkin."""
    return {
        "traceId": TRACE,
        "id": span_id,
        "kind": kind,
        "name": kind,
        "localEndpoint": {"serviceName": service},
        **more,
    }


def test_both_halves_of_a_shared_zipkin_span_are_kept() -> None:
    spans = [
        zipkin(ROOT, "CLIENT", "front"),
        zipkin(ROOT, "SERVER", "back", shared=True, timestamp=5),
        zipkin(CHILD, "CLIENT", "back", parentId=ROOT, timestamp=6),
        zipkin("00000000000000a3", "CLIENT", "front", parentId=ROOT, timestamp=6),
    ]
    found = {
        one.name + str(one.resource["service.name"]): one
        for one in read_text(json.dumps(spans).encode())
        if isinstance(one, ForeignSpan)
    }
    client, server = found["CLIENTfront"], found["SERVERback"]
    assert len({one.span_id for one in found.values()}) == 3
    assert server.parent_span_id == bytes.fromhex(ROOT)
    assert found["CLIENTback"].parent_span_id == server.span_id
    assert client.parent_span_id == bytes.fromhex(ROOT)  # of the same service as the client's half


KEYS = re.findall(
    r"\w+",
    "traceId spanId id name spans resourceSpans scopeSpans attributes key value events links data processes traceID spanID "
    "operationName tags observations trace context trace_id span_id status kind parentId startTime endTime timestamp duration "
    "resource references logs usage",
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=30,
)


@given(JSON)
def test_any_json_gives_spans_rejections_or_one_error(document: Any) -> None:
    try:
        found = list(read_text(json.dumps(document).encode()))
    except CodecError:
        return
    assert all(isinstance(one, ForeignSpan | Rejected) for one in found)


def test_a_bad_span_of_a_list_is_rejected_and_not_left_out() -> None:
    bad, good = read_text(json.dumps([{"traceId": TRACE, "name": "no id"}, bare(BOTH[0])]).encode())
    assert isinstance(bad, Rejected)
    assert bad.place == "$[0]"
    assert isinstance(good, ForeignSpan)


def test_a_document_that_breaks_off_costs_none_before_it() -> None:
    whole = json.dumps(otlp(BOTH[0]), indent=2)
    good, bad = read_text((whole + "\n" + whole[:-30]).encode())
    assert isinstance(good, ForeignSpan)
    assert isinstance(bad, Rejected)
    assert bad.place == f"line {whole.count(chr(10)) + 2}"


def scope(category: str, uuid: str, parent: str | None, when: str, second: int, data: Any, **more: Any) -> str:
    """A line of ATOF."""
    return json.dumps(
        {
            "kind": "scope",
            "scope_category": when,
            "atof_version": "0.1",
            "category": category,
            "uuid": uuid,
            "parent_uuid": parent,
            "data": data,
            "timestamp": f"2026-01-01T00:00:{second:02}Z",
            "name": uuid,
            **more,
        }
    )


def test_the_start_and_the_end_of_a_scope_of_atof_are_one_span() -> None:
    lines = [
        scope("agent", "run", None, "start", 0, {"question": "3 + 4?"}),
        scope("llm", "call", "run", "start", 1, "3 + 4?", category_profile={"model_name": "m-1"}),
        scope("llm", "call", "run", "end", 2, "7"),
        scope("tool", "open", "call", "start", 3, None),
        "{broken",
        scope("agent", "run", None, "end", 4, {"answer": "7"}),
    ]
    found = list(read_text("\n".join(lines).encode()))
    spans = {one.name: one for one in found if isinstance(one, ForeignSpan)}
    assert [one.place for one in found if isinstance(one, Rejected)] == ["line 5"]
    assert set(spans) == {"run", "call", "open"}
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["run"].parent_span_id is None
    assert spans["call"].parent_span_id == spans["run"].span_id
    assert spans["open"].parent_span_id == spans["call"].span_id
    assert (spans["run"].end_ns or 0) - spans["run"].start_ns == 4 * 10**9
    assert spans["open"].end_ns is None
    call = normalise(spans["call"])
    assert call.span_type is SpanType.LLM
    assert call.attributes["gen_ai.request.model"] == "m-1"
    assert call.attributes["gen_ai.output.messages"][0]["parts"] == [{"type": "text", "content": "7"}]
