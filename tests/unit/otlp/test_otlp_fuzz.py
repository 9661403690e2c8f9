"""Whatever bytes come in by OTLP or from a file: they are read or rejected with a reason, and what is read can be stored."""

import functools
import itertools
import json
import random
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from prela_stream.app.importing import read_import, summarize_import
from prela_stream.codec.spans import decode_batch, decode_span
from prela_stream.errors import CodecError
from prela_stream.otel.otlp.attributes import attributes_of, value_of
from prela_stream.otel.otlp.requests import Encoding, read_request
from prela_stream.otel.otlp.schema import RpcStatus
from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otlp.records import SpanRecords
from prela_stream.privacy.rules import Privacy
from prela_stream.transport.options import TopicOptions
from tests.support.otlp import JSON, PROTOBUF, Running, bomb, json_request, receiving, request
from tests.support.processes import DEADLINE

TOPICS = TopicOptions(partitions=2, max_record_bytes=20_000)
SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=200), st.binary(max_size=200)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
ATTRIBUTES = st.dictionaries(
    st.one_of(st.text(max_size=140), st.sampled_from(["gen_ai.operation.name", "prela.children", "input.value"])),
    VALUES,
    max_size=6,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "trace_id": st.one_of(st.binary(max_size=40), st.binary(min_size=16, max_size=16)),
    "span_id": st.one_of(st.binary(max_size=20), st.binary(min_size=8, max_size=8)),
    "parent_span_id": st.one_of(st.binary(max_size=20), st.binary(min_size=8, max_size=8)),
    "name": st.text(max_size=300),
    "trace_state": st.text(max_size=50),
    "kind": st.integers(0, 5),
    "flags": st.integers(0, 2**32 - 1),
    "start_time_unix_nano": st.integers(0, 2**64 - 1),
    "end_time_unix_nano": st.integers(0, 2**64 - 1),
    "attributes": ATTRIBUTES,
}
SPANS = st.lists(st.fixed_dictionaries({}, optional=FIELDS), max_size=3)
ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "resourceSpans",
                        "scopeSpans",
                        "spans",
                        "traceId",
                        "spanId",
                        "attributes",
                        "key",
                        "value",
                        "events",
                    ),
                    *(
                        "stringValue",
                        "arrayValue",
                        "kvlistValue",
                        "values",
                        "kind",
                        "status",
                        "code",
                        "links",
                        "resource",
                    ),
                    *(
                        "data",
                        "traceID",
                        "processes",
                        "operationName",
                        "id",
                        "observations",
                        "trace",
                        "startTime",
                        "type",
                    ),
                    *(
                        "context",
                        "trace_id",
                        "span_id",
                        "duration",
                        "timestamp",
                        "tags",
                        "localEndpoint",
                        "batches",
                        "name",
                    ),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


def stored(data: bytes, encoding: Encoding) -> int:
    """Read a request and pack it; the number of spans. Every part is a span that can be stored, or has a reason."""
    try:
        parts = list(read_request(data, encoding))
    except CodecError:
        return 0
    records = SpanRecords(TOPICS, Privacy())
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PRELA_STRICT", "1")  # raises what guard() would count
        for one in parts:
            if isinstance(one, Rejected):
                assert one.reason
                assert one.place
            else:
                records.add(one)
    spans = 0
    for packed in records.take():
        assert packed.size <= TOPICS.max_record_bytes
        batch = decode_batch(packed.record.value or b"")
        assert batch.bad == []
        for raw in batch.raws:
            decode_span(raw)
            spans += 1
    assert spans == sum(isinstance(one, ForeignSpan) for one in parts)
    return spans


@given(SPANS)
def test_any_spans_in_protobuf(spans: list[dict[str, Any]]) -> None:
    stored(request(*spans).SerializeToString(), "protobuf")


@given(SPANS, st.randoms(use_true_random=False))
def test_changed_bytes_in_protobuf(spans: list[dict[str, Any]], chance: random.Random) -> None:
    stored(changed(request(*spans, {}).SerializeToString(), chance), "protobuf")


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    stored(data, "protobuf")
    stored(data, "json")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "traceId",
                    "spanId",
                    "parentSpanId",
                    "name",
                    "kind",
                    "attributes",
                    "events",
                    "links",
                    "status",
                    "startTimeUnixNano",
                    "endTimeUnixNano",
                ]
            ),
            ANY_JSON,
            max_size=4,
        ),
        max_size=3,
    )
)
def test_any_spans_in_json(spans: list[dict[str, Any]]) -> None:
    stored(json_request(*spans), "json")


@given(ANY_JSON)
def test_any_document_as_a_request_and_as_a_file(document: Any) -> None:
    data = json.dumps(document).encode()
    stored(data, "json")
    summarize_import(read_import("file", data))
    summarize_import(read_import("file", data + b"\n{broken\n" + data))


@given(st.binary(max_size=100))
def test_any_bytes_as_a_file(data: bytes) -> None:
    file = read_import("file", data)
    assert file.spans or file.rejected


@given(ATTRIBUTES)
def test_attributes_are_read_as_protobuf_reads_them(attributes: dict[str, Any]) -> None:
    raws = [
        one.SerializeToString()
        for one in request({"attributes": attributes}).resource_spans[0].scope_spans[0].spans[0].attributes
    ]
    for _ in range(2):  # the second time from the cache
        found = attributes_of(raws)
        assert repr(found) == repr({one.key: value_of(one.value) for one in map(KeyValue.FromString, raws)})
        assert list(found) == list(attributes)


USUAL = request({"attributes": {"key": "text", "n": 300, "f": 0.5, "b": True, "long": "x" * 130}})


@pytest.mark.parametrize(
    "raw", [one.SerializeToString() for one in USUAL.resource_spans[0].scope_spans[0].spans[0].attributes]
)
def test_every_changed_byte_of_an_attribute_is_read_as_protobuf_reads_it(raw: bytes) -> None:
    for at in range(min(len(raw), 20)):
        for byte in range(128):  # text that is not UTF-8 is read with replacement characters, and protobuf refuses it
            assert_as_protobuf(raw[:at] + bytes([byte]) + raw[at + 1 :])
        assert_as_protobuf(raw[:at])
        assert_as_protobuf(raw[:at] + raw[at + 1 :])


@given(ATTRIBUTES.filter(bool), st.randoms(use_true_random=False))
def test_changed_attributes_are_read_as_protobuf_reads_them(attributes: dict[str, Any], chance: random.Random) -> None:
    spans = request({"attributes": attributes}).resource_spans[0].scope_spans[0].spans
    raw = changed(spans[0].attributes[0].SerializeToString(), chance)
    if max(raw, default=0) < 128:
        assert_as_protobuf(raw)


def test_values_of_every_length_are_read_as_protobuf_reads_them() -> None:
    for size in (*range(300), *range(16_370, 16_400), 70_000):
        for text in ("x" * size, "é" * (size // 2), "x" * max(size - 3, 0) + "é"):
            assert_as_protobuf(KeyValue(key="text", value=AnyValue(string_value=text)).SerializeToString())
    for bits in range(63):
        for number in (1 << bits, (2 << bits) - 1, -(2 << bits)):
            assert_as_protobuf(KeyValue(key="number", value=AnyValue(int_value=number)).SerializeToString())
    for length in range(5):  # also those that end too early or go on after their end
        for number_bytes in itertools.product((0x00, 0x01, 0x7F, 0x80, 0xFF), repeat=length):
            assert_as_protobuf(field(1, b"number") + field(2, b"\x18" + bytes(number_bytes)))


def assert_as_protobuf(raw: bytes) -> None:
    """Both readers refuse the bytes, or both read the same."""
    try:
        expected = KeyValue.FromString(raw)
    except DecodeError:
        with pytest.raises(CodecError):
            attributes_of([raw])
        return
    assert repr(attributes_of([raw])) == repr({expected.key: value_of(expected.value)})


def test_a_value_that_is_nested_too_deep_costs_its_span() -> None:
    assert attributes_of([nested(20)])["k"] == functools.reduce(lambda inner, _: [inner], range(20), cast("Any", "x"))
    with pytest.raises(CodecError):
        attributes_of([nested(5_000)])


def nested(depth: int) -> bytes:
    """An attribute whose value is a text in so many arrays."""
    value = field(1, b"x")
    for _ in range(depth):
        value = field(5, field(1, value))
    return field(1, b"k") + field(2, value)


def field(number: int, content: bytes) -> bytes:
    """A field with bytes as protobuf writes it."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def changed(data: bytes, chance: random.Random) -> bytes:
    """The data with a few bytes changed, removed and added."""
    made = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(4):
            case 0:
                made[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del made[at : at + chance.randrange(1, 9)]
            case 2:
                made[at:at] = chance.randbytes(chance.randrange(1, 9))
            case _:
                del made[at:]
    return bytes(made)


async def test_requests_of_changed_bytes_over_http(tmp_path: Path) -> None:
    chance = random.Random(5)
    valid = request({"attributes": {"a": "b", "n": 1}}, {"name": "two"}).SerializeToString()
    valid_json = json_request({"attributes": {"a": [1, {"b": 2}]}}, {})
    async with receiving(tmp_path) as running:
        for _ in range(60):
            for body, kind in ((valid, PROTOBUF), (valid_json, JSON)):
                answer = await running.post(changed(body, chance), kind)
                assert answer.status in (200, 400)
                if answer.status == 400:
                    sentence = (
                        RpcStatus.FromString(answer.body).message
                        if kind == PROTOBUF
                        else json.loads(answer.body)["message"]
                    )
                    assert sentence
        before = len(await running.spans())
        assert (await running.post(valid)).status == 200
        assert len(await running.spans()) == before + 2


def large(*spans: dict[str, Any]) -> bytes:
    """A request of more than 1 MiB, which is read span by span."""
    return request(*spans, {"name": "filler", "attributes": {"a": "x" * (1 << 20)}}).SerializeToString()


@given(SPANS)
def test_a_large_request_gives_what_a_small_one_gives(spans: list[dict[str, Any]]) -> None:
    small = list(read_request(request(*spans).SerializeToString(), "protobuf"))
    *found, filler = read_request(large(*spans), "protobuf")
    assert repr(found) == repr(small)  # NaN is not equal to itself
    assert isinstance(filler, ForeignSpan)


@given(SPANS, st.randoms(use_true_random=False))
def test_changed_bytes_of_a_large_request(spans: list[dict[str, Any]], chance: random.Random) -> None:
    data = large(*spans)
    at = chance.randrange(len(data))
    made = data[:at] + chance.randbytes(2) + data[at + chance.randrange(3) :]
    try:
        found = list(read_request(made, "protobuf"))
    except CodecError:
        return
    assert all(isinstance(one, ForeignSpan | Rejected) for one in found)


def test_too_many_parts_are_refused_with_a_sentence() -> None:
    ids = field(1, b"1" * 16) + field(2, b"2" * 8)
    padding = field(9, field(1, b"k") + field(2, field(1, b"x" * (1 << 20))))
    values = field(9, field(1, b"k") + field(2, field(5, b"\x0a\x00" * 200_001)))
    for parts, words in (
        (b"\x4a\x00" * 10_001, "10,001 attributes"),
        (b"\x5a\x00" * 10_001, "10,001 events"),
        (b"\x6a\x00" * 10_001, "10,001 links"),
        (b"\x4a\x00" * 50_000 + padding, "more than 10,000 attributes, events or links"),
        (values, "more than 200,000 values"),
    ):
        bad, good = read_request(field(1, field(2, field(2, ids + parts) + field(2, ids))), "protobuf")
        assert isinstance(bad, Rejected)
        assert words in bad.reason
        assert isinstance(good, ForeignSpan)
    for data, encoding, words in (
        (field(1, field(2, field(2, ids + padding) + b"\x12\x00" * 200_001)), "protobuf", "200,000 spans"),
        (b"[" + b"[]," * 2_000_000 + b"[]]", "json", "too many lists"),
    ):
        with pytest.raises(CodecError, match=words):
            list(read_request(data, cast("Encoding", encoding)))


def test_brackets_and_commas_of_texts_are_no_lists() -> None:
    text = json.dumps("[1,2],{" * 400_000)
    data = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": []}]}], "note": text}).encode()
    assert list(read_request(data, "json")) == []


async def test_bombs_at_once_take_bounded_memory(tmp_path: Path) -> None:
    squeezed = bomb(400)
    statuses: list[int] = []

    async def send(running: Running) -> None:
        statuses.append((await running.post(squeezed, content_encoding="gzip")).status)

    async with receiving(tmp_path) as running:
        most = 0

        async def watch() -> None:
            nonlocal most
            while len(statuses) < 8:
                most = max(most, running.waiting_bytes())
                await anyio.sleep(0.002)

        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                for _ in range(8):
                    tasks.start_soon(send, running)
        assert set(statuses) <= {413, 503}  # 503: so many at once are more than what may wait
        assert most <= running.settings.otlp.max_queue_bytes
        assert running.waiting_bytes() == 0
        assert (await running.post(b"")).status == 200
