"""A trace as OTLP JSON and as an HTML page, and two traces compared."""

import json
import re
from html.parser import HTMLParser

import msgspec

from prela_stream.model.span import SpanLink, SpanStatus, SpanType
from prela_stream.views.comparison import compare
from prela_stream.views.html_form import ExportedTrace, html_document
from prela_stream.views.otlp_json import otlp_document
from tests.support.agent_traces import conversation, deep, loop, made, with_failures
from tests.support.kept import decision

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=y>\x1b[2J\u202egnp"


class Reader(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect it."""
        self.found.append((tag, dict(attrs)))


def test_a_page_needs_nothing_else_and_runs_nothing() -> None:
    evil = made(
        1, None, EVIL, SpanType.LLM, at=0, ms=5, service=EVIL, status=SpanStatus.ERROR, status_message=EVIL,
        attributes={EVIL: EVIL, "gen_ai.input.messages": [{"role": EVIL, "parts": [{"type": "text", "content": EVIL}]}]},
    )  # fmt: skip
    about = msgspec.structs.replace(decision(1), policy=EVIL, reason=EVIL)
    traces = [
        ExportedTrace(spans=spans, decision=about) for spans in ([evil], conversation(), with_failures(), deep(300))
    ]
    text = "".join(html_document(traces))
    elements = Reader(text).found
    assert {tag for tag, _ in elements} <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "p",
            "code",
            "pre",
            "details",
            "summary",
            "div",
            "b",
        ),
        *("svg", "rect", "span", "dl", "dt", "dd"),
    }
    assert not [
        name for _, given in elements for name in given if name.startswith("on") or name in ("src", "href", "style")
    ]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert sum(tag == "h1" for tag, _ in elements) == 4
    assert "default-src 'none'" in text
    assert "2,300 km" in text


def test_otlp_has_what_a_span_has() -> None:
    link = SpanLink(bytes(range(16)), bytes(range(8)), {"why": "retry"})
    odd = {
        "n": 1,
        "big": 1 << 70,
        "f": 1.5,
        "nan": float("nan"),
        "b": b"\x00",
        "l": [1, "a"],
        "m": {"k": None},
        "t": True,
    }
    spans = [
        *with_failures(),
        made(9, 1, "odd", at=1, ms=2, attributes={**odd, "otel.span.kind": "client"}, links=[link]),
    ]
    document = json.loads(json.dumps(otlp_document(spans)))
    found = {
        span["spanId"]: (resource["resource"], span)
        for resource in document["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }
    assert len(found) == len(spans)
    for span in spans:
        resource, one = found[span.span_id]
        assert {"key": "service.name", "value": {"stringValue": span.resource.service_name}} in resource["attributes"]
        assert (one["traceId"], one["name"], one.get("parentSpanId")) == (span.trace_id, span.name, span.parent_span_id)
        assert int(one["startTimeUnixNano"]) == span.start_ns
        assert ("endTimeUnixNano" in one) is (span.duration_ns is not None)
        assert (one["status"].get("code") == 2) is (span.status in (SpanStatus.ERROR, SpanStatus.CANCELLED))
        assert re.fullmatch(r"[0-9a-f]{16}", one["spanId"])
    _, one = found[f"{9:016x}"]
    values = {each["key"]: each["value"] for each in one["attributes"]}
    assert values["n"] == {"intValue": "1"}
    assert values["big"] == {"stringValue": str(1 << 70)}
    assert values["b"] == {"bytesValue": "AA=="}
    assert values["m"] == {"kvlistValue": {"values": [{"key": "k", "value": {}}]}}
    assert (one["kind"], one["links"][0]["traceId"]) == (3, bytes(range(16)).hex())


def changes(before: list[object], after: list[object]) -> list[str]:
    marks = {"same": " ", "changed": "~", "added": "+", "removed": "-"}
    return [f"{marks[one.change]}{one.name}" for one in compare(before, after).spans]  # type: ignore[arg-type]


def test_two_traces_are_matched_by_type_and_name() -> None:
    before, after = conversation(), conversation()
    assert changes(before, after) == [" plan trip", " chat sonnet", " distance", " chat sonnet"]  # type: ignore[arg-type]
    after[2] = msgspec.structs.replace(after[2], name="flights")
    after[3] = msgspec.structs.replace(after[3], status=SpanStatus.ERROR, duration_ns=400_000_000)
    found = compare(before, after)
    assert [(one.change, one.name) for one in found.spans] == [
        ("same", "plan trip"), ("same", "chat sonnet"), ("removed", "distance"), ("added", "flights"), ("changed", "chat sonnet"),
    ]  # fmt: skip
    assert found.spans[4].notes == ("status SUCCESS → ERROR", "duration 40 ms → 400 ms")
    assert {one.name: (one.before, one.after) for one in found.figures}["errors"] == ("0", "1")
    assert sum(one.change == "added" for one in compare(loop(3), loop(5)).spans) == 4
    assert len(compare(deep(3_000), deep(2_999)).spans) == 3_000
