"""Everything that is counted as kept can be read, value by value. What cannot be read is in `dlq` with its bytes."""

from pathlib import Path
from typing import Any

import anyio
import msgpack
import msgspec
import pytest

import prela_stream as prela
from prela_stream.codec.bodies import MAX_NESTING, check_bodies
from prela_stream.codec.spans import decode_head, decode_resource, decode_span, encode_batch, encode_item, kind_of
from prela_stream.errors import CodecError
from prela_stream.model.span import COUNTED, ItemKind
from prela_stream.transport.local import LocalTransport
from tests.support.workers import (
    DEADLINE,
    SPANS,
    TOPICS,
    dead_letters,
    decided,
    kept_spans,
    local_log,
    make_worker,
    running,
    send,
    send_items,
    values,
)

TRACE, ROOT, CHILD = b"t" * 16, b"r" * 8, b"c" * 8
KEY = b"\xa1k"


def item(
    span_id: bytes, *, attributes: bytes = b"\x80", events: bytes = b"\x90", links: bytes = b"\x90", **fields: Any
) -> bytes:
    """A span item with these encoded bodies: a child of the root, or the root with one child."""
    is_root = span_id == ROOT
    return encode_item(
        fields.get("kind", ItemKind.SPAN),
        TRACE,
        span_id,
        None if is_root else ROOT,
        0 if is_root else COUNTED,
        1,
        0,
        int(is_root),
        0,
        None,
        5,
        1_000,
        10,
        "span",
        None,
        None,
        msgspec.Raw(attributes),
        msgspec.Raw(events),
        msgspec.Raw(links),
    )


def nested(levels: int) -> bytes:
    return b"\x81" + KEY + b"\x91" * (levels - 2) + b"\x90"


BAD = {
    "a text that is not UTF-8": {"attributes": b"\x81" + KEY + b"\xa4\xff\xfe\xfd\xfc"},
    "a key that is not UTF-8": {"attributes": b"\x81\xa1\xff\x01"},
    "a lone surrogate": {"attributes": b"\x81" + KEY + b"\xa3\xed\xa0\x80"},
    "attributes that are nil": {"attributes": b"\xc0"},
    "attributes that are a list": {"attributes": b"\x91\x01"},
    "a key that is a number": {"attributes": b"\x81\x01\x02"},
    "a nested key that is nil": {"attributes": b"\x81" + KEY + b"\x81\xc0\x01"},
    "a nested key that is a list": {"attributes": b"\x81" + KEY + b"\x81\x91\x01\x02"},
    "a nested key that is a map": {"attributes": b"\x81" + KEY + b"\x81\x80\x02"},
    "an extension type": {"attributes": b"\x81" + KEY + b"\xd4\x05\x01"},
    "a timestamp out of range": {"attributes": b"\x81" + KEY + b"\xc7\x0c\xff" + b"\xff" * 12},
    "too many levels": {"attributes": nested(MAX_NESTING + 1)},
    "an event without a time": {"events": b"\x91\x91\xa1e"},
    "an event whose time is a float": {"events": b"\x91\x92\xa1e\xcb" + b"\x3f\xf0" + b"\x00" * 6},
    "an event with a broken text": {"events": b"\x91\x93\xa1e\x01\x81" + KEY + b"\xa1\xff"},
    "an event with an extension type": {"events": b"\x91\x93\xa1e\x01\x81" + KEY + b"\xd4\x05\x01"},
    "events that are a map": {"events": b"\x80"},
    "a link with a short id": {"links": b"\x91\x92\xc4\x01a\xc4\x08" + b"s" * 8},
    "a link with a broken text": {"links": b"\x91\x93\xc4\x10" + TRACE + b"\xc4\x08" + ROOT + b"\x81" + KEY + b"\xa1\xff"},
}  # fmt: skip
GOOD = {
    "a number beyond 63 bits": b"\x81" + KEY + b"\xcf" + b"\xff" * 8,
    "a value that is not a number": b"\x81" + KEY + b"\xcb\x7f\xf8" + b"\x00" * 6,
    "bytes": b"\x81" + KEY + b"\xc4\x01\xff",
    "a moment": b"\x81" + KEY + b"\xd6\xff\x00\x00\x00\x01",
    "a nested key that is a number": b"\x81" + KEY + b"\x81\x01\x02",
    "as many levels as are allowed": nested(MAX_NESTING),
    "many flat containers": msgpack.packb({"k": [[] for _ in range(2 * MAX_NESTING)]}),
}


@pytest.mark.parametrize("bodies", BAD.values(), ids=BAD.keys())
def test_a_body_that_some_reader_cannot_read_is_refused(bodies: dict[str, bytes]) -> None:
    with pytest.raises(CodecError, match="cannot read"):
        check_bodies(decode_head(item(CHILD, **bodies)))


@pytest.mark.parametrize("attributes", GOOD.values(), ids=GOOD.keys())
def test_an_accepted_body_can_be_read_and_written_as_json(attributes: bytes) -> None:
    raw = item(CHILD, attributes=attributes)
    check_bodies(decode_head(raw))
    span = decode_span(raw)
    assert msgspec.json.encode(span.to_dict())


async def stopped_counters(transport: LocalTransport) -> Any:
    committed = await transport.committed("sampler", SPANS)
    assert committed is not None
    return msgspec.json.decode(committed.metadata)["counters"]


@pytest.mark.parametrize("bodies", BAD.values(), ids=BAD.keys())
async def test_an_unreadable_span_of_a_kept_trace_is_in_dlq_and_the_others_are_kept(
    tmp_path: Path, bodies: dict[str, bytes]
) -> None:
    bad, root = item(CHILD, **bodies), item(ROOT)
    async with local_log(tmp_path) as transport:
        async with running(make_worker(transport)):
            await send_items(transport, [bad, root])
            (decision,) = await decided(transport, 1)
        assert (decision.kept, decision.summary.spans) == (True, 1)
        assert await kept_spans(transport) == [root]
        ((offset, index, raw, reason),) = await dead_letters(transport)
        assert (offset, index, raw) == (0, -1, bad)
        assert reason.startswith("cannot read")
        consumed, still_open, kept, dropped, _, _, _, control, dlq = await stopped_counters(transport)
    assert (consumed - control, still_open, kept, dropped, dlq) == (2, 0, 1, 0, 1)


async def test_a_trace_without_a_readable_span_is_in_dlq_once_also_after_a_restart(tmp_path: Path) -> None:
    bad = [item(CHILD, attributes=b"\xc0"), item(ROOT, attributes=b"\xc0")]
    async with local_log(tmp_path) as transport:
        async with running(make_worker(transport)):
            await send_items(transport, bad)
            with anyio.fail_after(DEADLINE):
                while not await dead_letters(transport):
                    await anyio.sleep(0.01)
        async with running(make_worker(transport)):
            await send_items(transport, [encode_item(ItemKind.SPAN, b"u" * 16, ROOT, None, 0, 1, 0, 0, 0)])
            assert [one.trace_id for one in await decided(transport, 1)] == [b"u" * 16]
        assert [raw for _, _, raw, _ in await dead_letters(transport)] == [b"".join(bad)]
        consumed, still_open, kept, _, _, _, _, control, dlq = await stopped_counters(transport)
    assert (consumed - control, still_open, kept, dlq) == (3, 0, 1, 2)


async def test_an_unreadable_late_span_of_a_kept_trace_is_in_dlq_with_its_offset_and_index(tmp_path: Path) -> None:
    bad, good = item(CHILD, attributes=b"\xc0"), item(b"d" * 8)
    async with local_log(tmp_path) as transport:
        async with running(make_worker(transport)):
            await send_items(transport, [item(ROOT)])
            await decided(transport, 1)
            await send_items(transport, [good, bad])
            with anyio.fail_after(DEADLINE):
                while not (letters := await dead_letters(transport)) or len(await kept_spans(transport)) < 2:
                    await anyio.sleep(0.01)
        assert await kept_spans(transport) == [item(ROOT), good]
        assert [(index, raw) for _, index, raw, _ in letters] == [(1, bad)]


async def test_kept_traces_yields_every_span_that_is_counted_as_kept(tmp_path: Path) -> None:
    """The public reader agrees: what a worker keeps is read without an `unreadable` span."""
    async with local_log(tmp_path) as transport, running(make_worker(transport)):
        await send_items(transport, [item(CHILD, attributes=b"\xc0"), item(ROOT, attributes=GOOD["a moment"])])
        await decided(transport, 1)
    async with prela.kept_traces(None, follow=False, directory=tmp_path) as traces:
        (trace,) = [trace async for trace in traces]
    assert (len(trace.spans), trace.unreadable) == (1, 0)


@pytest.mark.parametrize(
    "value",
    [b"\xd4\x05\x01", b"\x81\xc0\x01", nested(1_000), nested(MAX_NESTING + 1)[2:]],
    ids=["ext", "nil key", "deep", "deeper"],
)
def test_a_resource_with_an_unreadable_value_is_readable(value: bytes) -> None:
    raw = b"\x82\xacservice.name\xa4shop\xaaattributes\x82\xa1a\x01\xa1b" + value
    resource = decode_resource(raw)
    assert msgspec.json.encode(resource)
    assert resource.service_name == "shop"
    assert resource.attributes


def test_the_other_values_of_a_resource_with_an_unreadable_value_are_read() -> None:
    raw = b"\x83\xacservice.name\xa4shop\xa9host.name\xa1\xff\xabprocess.pid\x07"
    resource = decode_resource(raw)
    assert (resource.service_name, resource.host, resource.pid) == ("shop", "", 7)
    assert set(resource.attributes) == {"prela.unreadable"}
    truncated = decode_resource(raw[:-8])
    assert (truncated.service_name, truncated.pid) == ("shop", 0)


@pytest.mark.parametrize("late", [False, True], ids=["kept", "late"])
async def test_a_trace_with_a_resource_that_no_reader_can_skip_is_kept_and_readable(tmp_path: Path, late: bool) -> None:
    deep = b"\x82\xacservice.name\xa4shop\xa1x" + nested(5_000)[3:]
    async with local_log(tmp_path) as transport, running(make_worker(transport)):
        if late:
            await send_items(transport, [item(ROOT)])
            await decided(transport, 1)
        await send(transport, encode_batch(deep, [item(CHILD)] if late else [item(CHILD), item(ROOT)]))
        await decided(transport, 1)
        with anyio.fail_after(DEADLINE):
            while len(await values(transport, TOPICS.sampled)) < 1 + late:
                await anyio.sleep(0.01)
    async with prela.kept_traces(None, follow=False, directory=tmp_path) as traces:
        found = [span for trace in [trace async for trace in traces] for span in trace.spans]
    assert sorted(span.span_id for span in found) == sorted([ROOT.hex(), CHILD.hex()])
    assert found[-1].resource.service_name == "shop"


def test_the_kind_of_an_item_is_known_even_if_the_item_is_nested_too_deep() -> None:
    assert kind_of(item(CHILD, attributes=nested(5_000))) == ItemKind.SPAN
    assert kind_of(item(CHILD, kind=ItemKind.START)) == ItemKind.START
