"""Each file format gives the same tree, and a bad part costs no other."""

import base64
import contextlib
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.errors import CodecError
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.otel.files.formats import read_text
from prela_stream.otel.files.times import microseconds_of, nanoseconds_of
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


def langfuse_observation(span_id: str) -> dict[str, Any]:
    """An observation that took one second."""
    return {
        "id": span_id,
        "traceId": TRACE,
        "type": "SPAN",
        "name": span_id,
        "parentObservationId": ROOT if span_id == CHILD else None,
        "startTime": "2023-11-14T22:13:20Z",
        "endTime": "2023-11-14T22:13:21Z",
        "metadata": json.dumps({"resourceAttributes": {"service.name": "shop"}}),
    }


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name)


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
    "snake case": json.dumps([{_snake(key): value for key, value in bare(span).items()} for span in BOTH]),
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
            "observations": [langfuse_observation(one) for one in (ROOT, CHILD)],
        }
    ),
    "Langfuse, a trace with its observations inside": json.dumps(
        {"trace": {"id": TRACE, "observations": [langfuse_observation(one) for one in (ROOT, CHILD)]}}
    ),
    "Langfuse, one observation of a blob export a line": "\n".join(
        json.dumps({_snake(key): value for key, value in langfuse_observation(one).items()}) for one in (ROOT, CHILD)
    ),
    "Phoenix, a row of its table on each line": "\n".join(
        json.dumps(
            {
                "name": one,
                "parent_id": ROOT if one == CHILD else None,
                "start_time": START // 1_000_000,
                "end_time": (START + 10**9) // 1_000_000,
                "context.trace_id": TRACE,
                "context.span_id": one,
                "attributes.openinference.span.kind": "CHAIN",
                "attributes.llm": None,
                "resource": {"service.name": "shop"},
            }
        )
        for one in (ROOT, CHILD)
    ),
    "Langfuse, its page as CSV": "id,traceId,type,name,parentObservationId,startTime,endTime,metadata\n"
    + "".join(
        f"{one},{TRACE},SPAN,{one},{ROOT if one == CHILD else ''},2023-11-14T22:13:20Z,2023-11-14T22:13:21Z,"
        '"{""resourceAttributes"":\n{""service.name"": ""shop""}}"\n'
        for one in (ROOT, CHILD)
    ),
    "Jaeger, api_v2": json.dumps(
        {
            "spans": [
                {
                    "traceId": base64.b64encode(bytes.fromhex(TRACE)).decode(),
                    "spanId": base64.b64encode(bytes.fromhex(one)).decode(),
                    "operationName": one,
                    "references": [
                        {
                            "traceId": base64.b64encode(bytes.fromhex(TRACE)).decode(),
                            "spanId": base64.b64encode(bytes.fromhex(ROOT)).decode(),
                        }
                    ]
                    if one == CHILD
                    else [],
                    "startTime": "2023-11-14T22:13:20Z",
                    "duration": "1s",
                    "process": {"serviceName": "shop"},
                }
                for one in (ROOT, CHILD)
            ]
        }
    ),
    "Go SDK": "\n".join(
        json.dumps(
            {
                "Name": one,
                "SpanContext": {"TraceID": TRACE, "SpanID": one},
                "Parent": {"TraceID": "0" * 32, "SpanID": ROOT if one == CHILD else "0" * 16, "Remote": False},
                "StartTime": "2023-11-14T22:13:20.000000000Z",
                "EndTime": "2023-11-14T22:13:21.000000000Z",
                "Attributes": None,
                "Status": {"Code": "Unset"},
                "Resource": [{"Key": "service.name", "Value": {"Type": "STRING", "Value": "shop"}}],
            },
            indent=1,
        )
        for one in (ROOT, CHILD)
    ),
    "JavaScript's console exporter": json.dumps(
        [
            {
                "resource": {"attributes": {"service.name": "shop"}},
                "traceId": TRACE,
                "parentId": ROOT if one == CHILD else None,
                "name": one,
                "id": one,
                "timestamp": START / 1000,
                "duration": 1_000_000,
                "attributes": {},
                "status": {"code": 0},
            }
            for one in (ROOT, CHILD)
        ]
    ),
    "JavaScript's console exporter, as Node prints it": "".join(
        f"""{{
  resource: Resource {{ attributes: [Object: null prototype] {{ 'service.name': 'shop' }} }},
  instrumentationScope: {{ name: 'lib', version: undefined }},
  traceId: '{TRACE}',
  parentId: {f"'{ROOT}'" if one == CHILD else "undefined"},
  traceState: undefined,
  name: '{one}',
  id: '{one}',
  kind: 2,
  timestamp: {START // 1000},
  duration: 1000000,
  attributes: {{ 'a.b': "it's", long: 'one\\n' +
    'two', deep: [Object], list: [ 1, 2.5, true ] }},
  status: {{ code: 0 }},
  events: [],
  links: []
}}
"""
        for one in (ROOT, CHILD)
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


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_gzip_is_decompressed(text: str) -> None:
    assert list(read_text(gzip.compress(text.encode()))) == list(read_text(text.encode()))


def test_what_node_prints_is_read_with_its_values() -> None:
    span, _ = read_text(FILES["JavaScript's console exporter, as Node prints it"].encode())
    assert isinstance(span, ForeignSpan)
    assert span.attributes == {"a.b": "it's", "long": "one\ntwo", "deep": None, "list": [1, 2.5, True]}
    assert span.kind == "client"
    whole = FILES["JavaScript's console exporter, as Node prints it"]
    good, bad = read_text(whole[: whole.rindex("status")].encode())
    assert isinstance(good, ForeignSpan)
    assert isinstance(bad, Rejected)
    assert bad.place == "line 1"


@given(st.text(alphabet="{}[],:'\"`\\\\ab1n+ \n", max_size=60))
def test_any_text_of_javascript_gives_spans_or_one_error(text: str) -> None:
    with contextlib.suppress(CodecError):
        list(read_text(text.encode()))


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_zstd_and_other_encodings_are_read(text: str) -> None:
    expected = list(read_text(text.encode()))
    frames = [bytes(cramjam.zstd.compress(line.encode())) for line in text.splitlines(keepends=True)]
    assert list(read_text(b"".join(frames))) == expected
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        assert list(read_text(text.removeprefix("\ufeff").encode(encoding))) == expected


def test_frames_of_a_collector_that_compresses() -> None:
    frames = [bytes(cramjam.zstd.compress(json.dumps(otlp(span)).encode())) for span in BOTH]
    assert len(list(read_text(b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)))) == 2
    with pytest.raises(CodecError, match="cannot be decompressed"):
        list(read_text(frames[0][:-20]))
    many = json.dumps(otlp(*(otlp_span(f"{n:016x}", None) for n in range(1, 20_000)))).encode()
    assert len(list(read_text(bytes(cramjam.zstd.compress(many))))) == 19_999


JS_SPANS: Final = [
    {
        "name": one,
        "spanContext": {"traceId": TRACE, "spanId": one},
        "parentSpanId": ROOT if one == CHILD else None,
        "startTime": [1_700_000_000, 0],
        "endTime": [1_700_000_001, 0],
        "attributes": {},
    }
    for one in (ROOT, CHILD)
]
ODD: Final[dict[str, tuple[bytes, int]]] = {
    "a comma after each line": (",\n".join(json.dumps(otlp(span)) for span in BOTH).encode() + b",\n", 0),
    "a list that does not end": (b"[\n" + ",\n".join(json.dumps(otlp(span)) for span in BOTH).encode(), 1),
    "nothing between": ("".join(json.dumps(otlp(span)) for span in BOTH).encode(), 0),
    "RFC 7464": ("".join(f"\x1e{json.dumps(otlp(span))}\n" for span in BOTH).encode(), 0),
    "a text before": (b"Exporting\n" + json.dumps(otlp(*BOTH), indent=1).encode(), 1),
    "a text after": (json.dumps(otlp(*BOTH), indent=1).encode() + b"\nDone.\n", 1),
    "lines that are JSON inside of documents": (
        "\n".join(
            json.dumps(otlp({**span, "attributes": [], "links": {}, "x": ["stop", 1, None]}), indent=1) for span in BOTH
        ).encode(),
        0,
    ),
    "NaN on a line": ("\n".join(json.dumps(otlp({**span, "x": float("nan")})) for span in BOTH).encode(), 0),
    "half a surrogate": (json.dumps(otlp(*BOTH)).encode()[:-1] + b', "x": "\\ud83d"}', 0),
    "a byte that is not UTF-8": (json.dumps(otlp(*BOTH)).encode()[:-1] + b', "x": "\xe9"}', 0),
    "JSON in a text": (json.dumps(json.dumps(otlp(*BOTH))).encode(), 0),
    "JSON in a text on each line": ("\n".join(json.dumps(json.dumps(otlp(span))) for span in BOTH).encode(), 0),
    "the lines of a container": (
        "\n".join(json.dumps({"log": json.dumps(otlp(span)) + "\n", "stream": "stdout"}) for span in BOTH).encode(),
        0,
    ),
    "the records of a topic": ("\n".join(json.dumps({"payload": otlp(span)}) for span in BOTH).encode(), 0),
    "a log between documents": (
        "\n".join(f"a log\n{json.dumps(otlp(span), indent=1)}" for span in BOTH).encode() + b"\nthe end",
        3,
    ),
    "spans by their names": (json.dumps({one["name"]: [one] for one in JS_SPANS}).encode(), 0),
    "spans in results": (json.dumps({"results": [{"case": 1, "spans": JS_SPANS}]}).encode(), 0),
    "an answer of Elasticsearch": (
        json.dumps(
            {
                "hits": {
                    "hits": [
                        {"_source": {"traceID": TRACE, "spanID": one, "operationName": one, "process": {}}}
                        for one in (ROOT, CHILD)
                    ]
                }
            }
        ).encode(),
        0,
    ),
}


@pytest.mark.parametrize(("data", "rejected"), ODD.values(), ids=ODD)
def test_what_is_around_the_documents_costs_no_span(data: bytes, rejected: int) -> None:
    found = list(read_text(data))
    assert {one.span_id.hex() for one in found if isinstance(one, ForeignSpan)} == {ROOT, CHILD}
    assert sum(isinstance(one, Rejected) for one in found) == rejected


def test_observations_on_lines_are_not_taken_for_zipkin() -> None:
    observation = {**langfuse_observation(ROOT), "usageDetails": {"input": 5, "output": 3}, "type": "GENERATION"}
    lines = f"{json.dumps(observation)}\n{json.dumps(langfuse_observation(CHILD))}"
    call, _ = read_text(lines.encode())
    assert isinstance(call, ForeignSpan)
    assert normalise(call).span_type is SpanType.LLM


@pytest.mark.parametrize(
    "value",
    [
        {"Value": {"StringValue": "a"}},
        {"value": {"$case": "stringValue", "stringValue": "a"}},
        {"$case": "stringValue", "stringValue": "a"},
    ],
)
def test_values_of_structures_that_were_printed_as_json(value: dict[str, Any]) -> None:
    span = otlp_span(ROOT, None, attributes=[{"key": "k", "value": value}])
    (found,) = read_text(json.dumps(otlp(span)).encode())
    assert isinstance(found, ForeignSpan)
    assert found.attributes == {"k": "a"}


def test_gzip_data_that_breaks_off_gets_one_sentence() -> None:
    with pytest.raises(CodecError, match="cannot be decompressed"):
        list(read_text(gzip.compress(FILES["one request"].encode())[:-20]))


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


def reported(span_id: str, service: str, **more: Any) -> dict[str, Any]:
    """A span of Zipkin that took one second."""
    times = {"timestamp": START // 1000, "duration": 1_000_000}
    return {"traceId": TRACE, "id": span_id, "localEndpoint": {"serviceName": service}, **times, **more}


def test_the_parts_of_a_zipkin_span_are_joined() -> None:
    first = reported(CHILD, "shop", parentId=ROOT, name="pay", kind="CLIENT", tags={"a": "1"})
    late = {
        "traceId": TRACE,
        "id": CHILD,
        "localEndpoint": {"serviceName": "shop"},
        "tags": {"b": "2", "error": "no"},
        "annotations": [{"timestamp": START // 1000, "value": "late"}],
    }
    for parts in ([first, late], [late, first], [first, late, first, late]):
        (span,) = read_text(json.dumps(parts).encode())
        assert isinstance(span, ForeignSpan)
        assert (span.name, span.kind, span.parent_span_id) == ("pay", "client", bytes.fromhex(ROOT))
        assert (span.start_ns, span.end_ns) == (START, START + 10**9)
        assert (span.attributes, span.status, span.status_message) == ({"a": "1", "b": "2"}, "error", "no")
        assert [event.name for event in span.events] == ["late"]


def test_what_received_one_message_twice_are_two_spans() -> None:
    first = reported(CHILD, "shop", kind="CONSUMER")
    again = {**first, "timestamp": START // 1000 + 5}
    found = [one for one in read_text(json.dumps([first, again, first]).encode()) if isinstance(one, ForeignSpan)]
    assert len({one.span_id for one in found}) == 2


def test_spans_of_several_services_with_one_id_are_all_kept() -> None:
    shared = [reported(CHILD, service, kind="SERVER", shared=True) for service in ("a", "b")]
    for spans in (shared, [reported(CHILD, service) for service in ("a", "b", "c")]):
        found = [one for one in read_text(json.dumps(spans).encode()) if isinstance(one, ForeignSpan)]
        assert len({one.span_id for one in found}) == len(spans)
        assert [one.parent_span_id for one in found[1:]] == [bytes.fromhex(CHILD)] * (len(spans) - 1)


def replaced(document: Any, by: Any) -> Iterator[Any]:
    """Documents that differ from this one in one value each."""
    yield by
    if isinstance(document, dict):
        for key, value in document.items():
            yield from ({**document, key: one} for one in replaced(value, by))
    elif isinstance(document, list):
        for at, value in enumerate(document):
            yield from ([*document[:at], one, *document[at + 1 :]] for one in replaced(value, by))


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_value_of_another_kind_costs_its_span_at_most(text: str) -> None:
    lines = text.removeprefix("\ufeff").splitlines()
    for document in (json.loads(lines[0]),) if lines[0][-1] in "]}" else ():
        with_events = json.loads(json.dumps(document).replace('"traceId"', '"events": [], "links": [], "traceId"'))
        for by in (3, "x", [3], {"a": 3}):
            for one in replaced(with_events, by):
                with contextlib.suppress(CodecError):
                    assert all(
                        isinstance(found, ForeignSpan | Rejected) for found in read_text(json.dumps(one).encode())
                    )


def test_a_list_of_another_kind_is_empty() -> None:
    jaeger = {
        "traceID": TRACE,
        "spanID": ROOT,
        "operationName": "a",
        "process": {},
        "logs": 3,
        "tags": 3,
        "references": 3,
    }
    zipkin = {"traceId": TRACE, "id": ROOT, "annotations": 3, "tags": 3}
    sdk = {**JS_SPANS[0], "events": 3, "links": 3}
    for document in (jaeger, zipkin, sdk):
        (span,) = read_text(json.dumps(document).encode())
        assert isinstance(span, ForeignSpan)
        assert not span.events


def test_no_digit_of_a_time_is_lost() -> None:
    for text, more in (
        ("2023-11-14T22:13:20.123456789Z", 123_456_789),
        ("2023-11-14T22:13:20.1234567+00:00", 123_456_700),
    ):
        assert nanoseconds_of(text) == START + more
    assert microseconds_of("1700000000123457") == START + 123_457_000


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


def test_a_draft_of_atof_is_read() -> None:
    def event(kind: str, uuid: str, second: int, **more: Any) -> str:
        stamp = f"2026-01-02T00:00:{second:02}Z"
        return json.dumps(
            {"schema_version": "0.1", "kind": kind, "uuid": uuid, "timestamp": stamp, "name": uuid, **more}
        )

    lines = [
        event("StreamHeader", "head", 0, codecs={}),
        event("ScopeStart", "run", 0, scope_type="agent", input="7?"),
        event("ScopeStart", "call", 1, parent_uuid="run", scope_type="llm", model_name="m-1", input={"messages": []}),
        event("ScopeEnd", "call", 2, parent_uuid="run", scope_type="llm", output={"content": "7"}, status="ok"),
        event("ScopeStart", "tool", 3, parent_uuid="run", scope_type="tool", input={"q": 1}),
        event(
            "ScopeEnd", "tool", 4, parent_uuid="run", status="error", error={"type": "TimeoutError", "message": "5 s"}
        ),
        event("ScopeEnd", "run", 5, status="ok", output="7"),
    ]
    found = list(read_text("\n".join(lines).encode()))
    spans = {one.name: normalise(one) for one in found if isinstance(one, ForeignSpan)}
    assert len(found) == 3
    assert {name: span.span_type for name, span in spans.items()} == {
        "run": SpanType.AGENT,
        "call": SpanType.LLM,
        "tool": SpanType.TOOL,
    }
    assert spans["call"].attributes["gen_ai.request.model"] == "m-1"
    assert spans["tool"].status is SpanStatus.ERROR
    assert spans["tool"].attributes["error.type"] == "TimeoutError"


def test_tags_of_jaeger_in_every_form() -> None:
    span = {
        "traceId": TRACE,
        "spanId": ROOT,
        "operationName": "op",
        "tag": {"http@method": "GET"},
        "tags": [
            {"key": "text", "vStr": "a"},
            {"key": "whole", "vType": "INT64", "vInt64": "12"},
            {"key": "no", "vType": "BOOL"},
            {"key": "bytes", "type": "binary", "value": "AAE="},
            {"key": "older", "type": "float64", "value": "1.5"},
        ],
        "references": [
            {"refType": "FOLLOWS_FROM", "traceId": "0" * 31 + "1", "spanId": CHILD},
            {"refType": "FOLLOWS_FROM", "traceId": TRACE, "spanId": CHILD},
        ],
    }
    (found,) = read_text(json.dumps(span).encode())
    assert isinstance(found, ForeignSpan)
    assert found.attributes == {
        "http.method": "GET",
        "text": "a",
        "whole": 12,
        "no": False,
        "bytes": b"\x00\x01",
        "older": 1.5,
    }
    assert found.parent_span_id == bytes.fromhex(CHILD)
    assert [link.trace_id[-1] for link in found.links] == [1]


def test_a_value_with_all_kinds_has_the_one_that_is_set() -> None:
    value = {"stringValue": None, "intValue": "3", "boolValue": None}
    attributes = [{"key": "a", "value": value}, {"key": "b", "value": {"stringValue": "x", "other": 1}}]
    (span,) = read_text(json.dumps(otlp(otlp_span(ROOT, None, attributes=attributes))).encode())
    assert isinstance(span, ForeignSpan)
    assert span.attributes == {"a": 3, "b": {"stringValue": "x", "other": 1}}


def test_counts_and_costs_beside_the_maps_of_langfuse() -> None:
    call = {**langfuse_observation(ROOT), "type": "GENERATION", "metadata": None, "providedModelName": "m-1"}
    call |= {"usage": {"promptTokens": 5}, "completionTokens": 7, "calculatedTotalCost": "0.25"}
    tool = {**langfuse_observation(CHILD), "type": "TOOL", "output": '"rain"', "parentObservationId": TRACE}
    spans = [one for one in read_text(json.dumps([call, tool]).encode()) if isinstance(one, ForeignSpan)]
    attributes = normalise(spans[0]).attributes
    assert attributes["gen_ai.request.model"] == "m-1"
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (5, 7)
    assert attributes["prela.cost.usd"] == 0.25
    assert normalise(spans[1]).attributes["gen_ai.tool.call.result"] == "rain"
    assert spans[1].parent_span_id is None


def test_the_nested_attributes_of_phoenix() -> None:
    span = {
        "name": "ChatCompletion",
        "context": {"trace_id": TRACE, "span_id": ROOT},
        "span_kind": "LLM",
        "parent_id": None,
        "start_time": "2023-11-14T22:13:20+00:00",
        "end_time": "2023-11-14T22:13:21+00:00",
        "status_code": "ERROR",
        "status_message": "no",
        "attributes": {
            "llm": {
                "model_name": "m-1",
                "token_count": {"prompt": 3, "completion": 4},
                "input_messages": [{"message": {"role": "user", "content": "hi"}}],
            },
            "metadata": {"a": 1},
        },
    }
    (found,) = read_text(json.dumps(span).encode())
    assert isinstance(found, ForeignSpan)
    meaning = normalise(found)
    assert (meaning.span_type, meaning.status) == (SpanType.LLM, SpanStatus.ERROR)
    assert meaning.attributes["gen_ai.input.messages"][0]["parts"] == [{"type": "text", "content": "hi"}]
    assert meaning.attributes["gen_ai.usage.input_tokens"] == 3
    assert meaning.attributes["metadata"] == {"a": 1}


def test_the_steps_of_a_swe_agent() -> None:
    run = {
        "environment": "main",
        "trajectory": [
            {"action": "ls -a\n", "observation": "main.py", "response": "I list the files.", "execution_time": 0.5},
            {"action": "submit\n", "observation": "", "response": "I submit."},
            "no step",
        ],
        "history": [
            {"role": "system", "content": "You program."},
            {"role": "user", "content": "Fix it."},
            {"role": "assistant", "content": "I list the files."},
            {"role": "user", "content": "main.py"},
            {"role": "assistant", "content": "I submit."},
        ],
        "info": {"exit_status": "submitted", "model_stats": {"tokens_sent": 100, "tokens_received": 9}},
    }
    found = list(read_text(json.dumps(run).encode()))
    assert [one.place for one in found if isinstance(one, Rejected)] == ["$.trajectory[2]"]
    spans = [(one, normalise(one)) for one in found if isinstance(one, ForeignSpan)]
    assert [str(meaning.span_type) for _, meaning in spans] == ["LLM", "TOOL", "LLM", "TOOL", "AGENT"]
    assert len({one.span_id for one, _ in spans}) == 5
    assert {one.parent_span_id for one, _ in spans[:4]} == {spans[4][0].span_id}
    assert [len(spans[index][1].attributes["gen_ai.input.messages"]) for index in (0, 2)] == [2, 4]
    assert spans[1][1].attributes["gen_ai.tool.name"] == "ls"
    assert (spans[1][0].end_ns or 0) - spans[1][0].start_ns == 500_000_000
    assert spans[4][1].attributes["gen_ai.aggregated_usage.input_tokens"] == 100


@pytest.mark.parametrize(
    "time",
    [
        "2023-11-14T22:13:20Z",
        *(START // unit for unit in (1, 1_000, 1_000_000, 1_000_000_000)),
        *(str(START // unit) for unit in (1, 1_000, 1_000_000, 1_000_000_000)),
        START / 1e9,
    ],
)
def test_a_time_in_any_unit(time: Any) -> None:
    flat = {"traceId": TRACE, "spanId": ROOT, "name": "a", "startTime": time, "endTime": time}
    sdk = {**JS_SPANS[0], "startTime": time, "endTime": time}
    langfuse = {**langfuse_observation(ROOT), "startTime": time, "endTime": time}
    for document in (flat, sdk, langfuse):
        (span,) = read_text(json.dumps(document).encode())
        assert isinstance(span, ForeignSpan)
        assert (span.start_ns, span.end_ns) == (START, START)


def test_an_event_of_atof_without_a_scope_belongs_to_the_only_root() -> None:
    mark = json.dumps(
        {"kind": "mark", "atof_version": "0.1", "uuid": "m", "parent_uuid": None, "name": "begin", "timestamp": None}
    )
    root = [scope("agent", "r", None, when, second, None) for second, when in enumerate(("start", "end"))]
    (span,) = read_text("\n".join([mark, *root]).encode())
    assert isinstance(span, ForeignSpan)
    assert [one.name for one in span.events] == ["begin"]
    other = [scope("agent", "q", None, when, second, None) for second, when in enumerate(("start", "end"))]
    found = list(read_text("\n".join([mark, *root, *other]).encode()))
    assert [one.place for one in found if isinstance(one, Rejected)] == ["line 1: $"]


@pytest.mark.parametrize(
    "document",
    [
        [{"gen_ai.operation.name": "chat"}, {"openinference.span.kind": "LLM"}],
        [
            {"name": "call", "attributes": {"ai.operationId": "ai.generateText.doGenerate"}},
            {"llm.request.type": "chat"},
        ],
        [{"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3}, {"gen_ai.operation.name": "chat", "n": 2}],
    ],
)
def test_maps_of_attributes_are_spans(document: list[dict[str, Any]]) -> None:
    lines = "\n".join(map(json.dumps, document))
    for text in (json.dumps(document), lines):
        spans = [one for one in read_text(text.encode()) if isinstance(one, ForeignSpan)]
        assert [normalise(one).span_type for one in spans] == [SpanType.LLM, SpanType.LLM]
        assert len({one.span_id for one in spans}) == 2


def test_the_attributes_of_one_span_are_a_span() -> None:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3, "input": "hi"}
    (found,) = read_text(json.dumps(attributes).encode())
    assert isinstance(found, ForeignSpan)
    meaning = normalise(found)
    assert (meaning.span_type, meaning.status) == (SpanType.LLM, SpanStatus.SUCCESS)
    assert meaning.attributes["gen_ai.usage.input_tokens"] == 3
