"""What the codec costs, beside JSON and OTLP's protobuf. Prints JSON: microseconds a span, best of several rounds.

python bench/codec.py [--seconds 0.2]
"""

import argparse
import importlib
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import msgspec

from prela_stream.codec.projection import projection
from prela_stream.codec.spans import (
    decode_batch,
    decode_heads,
    decode_span,
    encode_batch,
    encode_item,
    encode_resource,
)
from prela_stream.model.span import ItemKind, Resource, SpanData, SpanStatus, SpanType
from tests.support.items import encode_span

TRACE, SPAN, PARENT = bytes(range(16)), bytes(range(8)), bytes(range(8, 16))
START = 1_700_000_000_000_000_000
SMALL: dict[str, Any] = {"gen_ai.request.model": "m-1", "gen_ai.usage.input_tokens": 812, "prela.cost.usd": 0.0031}
RESOURCE = encode_resource(Resource(service_name="bench", sdk_version="0", host="host", pid=1))
PER_RECORD = (1, 10, 100)
KILOBYTES = (0.2, 1.0, 8.0)


def span(kilobytes: float) -> SpanData:
    """A span of about this size: three small attributes and one long message."""
    text = "lorem ipsum dolor sit amet " * 400
    return SpanData(
        trace_id=TRACE.hex(),
        span_id=SPAN.hex(),
        parent_span_id=PARENT.hex(),
        name="chat m-1",
        span_type=SpanType.LLM,
        status=SpanStatus.SUCCESS,
        start_ns=START,
        duration_ns=1_234_567_890,
        child_count=0,
        inject_count=0,
        flags=1,
        attributes={**SMALL, "gen_ai.input.messages": text[: max(0, int(kilobytes * 1000) - 190)]},
    )


def measure(work: Callable[[], object], spans: int, seconds: float) -> float:
    """Microseconds a span: the best of rounds that together last `seconds`."""
    work()
    begin = time.perf_counter()
    work()
    once = max(1, round(seconds / 10 / max(time.perf_counter() - begin, 1e-7)))
    best = float("inf")
    for _ in range(10):
        begin = time.perf_counter()
        for _ in range(once):
            work()
        best = min(best, (time.perf_counter() - begin) / once)
    return round(best / spans * 1e6, 3)


def encode(seconds: float) -> dict[str, Any]:
    """A head and three attributes to bytes."""
    as_dict = {"traceId": TRACE.hex(), "spanId": SPAN.hex(), "name": "chat m-1", "start": START, "attributes": SMALL}

    def item() -> bytes:
        return encode_item(
            ItemKind.SPAN,
            TRACE,
            SPAN,
            PARENT,
            1,
            1,
            0,
            0,
            0,
            None,
            1,
            START,
            5,
            "chat m-1",
            None,
            None,
            SMALL,
            [],
            [],
            None,
        )

    return {
        "prela_stream": measure(item, 1, seconds),
        "json": measure(lambda: json.dumps(as_dict).encode(), 1, seconds),
    }


def decode(count: int, kilobytes: float, seconds: float) -> dict[str, Any]:
    """One Record of `count` spans: heads, everything, and heads with two attributes."""
    one = span(kilobytes)
    raws = [encode_span(one)] * count
    value = encode_batch(RESOURCE, raws)
    as_json = json.dumps([msgspec.to_builtins(one)] * count).encode()
    project = projection(["gen_ai.usage.input_tokens", "prela.cost.usd"])
    return {
        "spans_in_record": count,
        "span_bytes": len(raws[0]),
        "heads": measure(lambda: decode_batch(value), count, seconds),
        "heads_and_2_attributes": measure(
            lambda: [project(head.attributes) for head in decode_heads(decode_batch(value).raws)],
            count,
            seconds,
        ),
        "everything": measure(lambda: [decode_span(raw) for raw in decode_batch(value).raws], count, seconds),
        "json": measure(lambda: json.loads(as_json), count, seconds),
        "otlp": otlp(one, count, seconds),
    }


def otlp(one: SpanData, count: int, seconds: float) -> dict[str, float] | str:
    """The same spans as OTLP protobuf, or which package is missing. Its `decode` makes no Python value of any attribute."""
    try:
        service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    except ImportError:
        return "missing: opentelemetry-proto"
    request = service.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans

    def add() -> None:
        made = spans.add(
            trace_id=TRACE,
            span_id=SPAN,
            parent_span_id=PARENT,
            name=one.name,
            start_time_unix_nano=one.start_ns,
            end_time_unix_nano=one.end_ns,
        )
        for key, value in one.attributes.items():
            kind = {int: "int_value", float: "double_value"}.get(type(value), "string_value")
            setattr(made.attributes.add(key=key).value, kind, value)

    def build() -> bytes:
        del spans[:]
        for _ in range(count):
            add()
        encoded: bytes = request.SerializeToString()
        return encoded

    value = build()
    return {
        "encode": measure(build, count, seconds),
        "decode": measure(lambda: service.ExportTraceServiceRequest.FromString(value), count, seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.2, help="for each number, about (default: 0.2)")
    seconds = parser.parse_args().seconds
    found = {
        "unit": "microseconds a span",
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
        "encode_head_and_3_attributes": encode(seconds),
        "decode": [decode(count, kilobytes, seconds) for count in PER_RECORD for kilobytes in KILOBYTES],
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
