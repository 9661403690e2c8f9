"""What a running pipeline writes, read by a reader that knows docs/wire.md alone; what a stranger writes, kept by our worker."""

from pathlib import Path
from typing import Any

import anyio
import msgspec

import prela_stream as prela
from prela_stream.app import ready_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.dlq import decode_dead_letter
from prela_stream.codec.sampled import decode_kept
from prela_stream.codec.spans import decode_batch, decode_span
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord, TopicPartition, Transport
from tests.support import plain_reader
from tests.support.workers import DEADLINE, WHOLE_ONLY, make_worker, running, send

FAILURES = Evaluator(load_policies('[[policy]]\nname = "failed"\ntype = "status"\n', source="test"))
STRANGE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")


async def stored(transport: Transport, topic: str) -> list[LogRecord]:
    """All records of a topic, in the order of each partition."""
    found: list[LogRecord] = []
    async with await transport.consumer([topic]) as consumer:
        assigned = (await consumer.poll(timeout=0.0)).assigned
        ends = {part: await consumer.end_offset(part) for part in assigned}
        consumer.resume(*assigned)
        with anyio.fail_after(DEADLINE):
            while any([await consumer.position(part) < end for part, end in ends.items()]):
                found += (await consumer.poll(timeout=0.05)).records
    return found


def strangers_trace() -> list[list[Any]]:
    """A root that failed and its tool, as a producer sends them that has only read the page."""
    root, tool = b"\x01" * 8, b"\x02" * 8
    return [
        [0, STRANGE, tool, root, 1, 1, 0, 0, 0, None, 2, 1_000, 500, "lookup"],
        [
            0,
            STRANGE,
            root,
            None,
            0,
            2,
            0,
            1,
            0,
            None,
            0,
            900,
            900,
            "answer",
            None,
            None,
            {"n": 2**63},
            [],
            [],
            "no answer",
        ],
    ]


async def run_pipeline(settings: Settings, transport: Transport) -> None:
    """A kept trace larger than a record, a dropped one, one of a foreign producer with a late span, and an unreadable record."""
    topics = settings.topics
    async with running(make_worker(transport, topics=topics, assembly=WHOLE_ONLY, evaluator=FAILURES)):
        async with prela.pipeline(settings):
            with prela.get_tracer().span("dropped"):
                pass
            with prela.get_tracer().span("kept", span_type=prela.SpanType.AGENT) as span:
                for number in range(4):
                    with prela.get_tracer().span("tool", attributes={"result": str(number) * 6_000}) as tool:
                        tool.add_event("note", {"at": b"raw", "list": [1, None, 2.5]})
                        tool.add_link(span)
                span.set_status(prela.SpanStatus.ERROR, "on purpose")
        at = TopicPartition(topics.spans, plain_reader.partition_of(STRANGE, topics.partitions))
        tool_item, root_item = strangers_trace()
        await send(transport, plain_reader.write_spans({"service.name": "strange"}, [root_item, tool_item, [0]]), to=at)
        await until(transport, topics.decisions, decode_decisions, 3)
        late = [*tool_item[:2], b"\x03" * 8, *tool_item[3:]]
        await send(transport, plain_reader.write_spans({"service.name": "late"}, [late, [77, "unknown"], [6]]), to=at)
        await until(transport, topics.sampled, lambda value: [1] if decode_kept(value).late else [], 1)


async def until(transport: Transport, topic: str, count: Any, wanted: int) -> None:
    """Wait until the records of a topic contain this many entries."""
    with anyio.fail_after(DEADLINE):
        while sum(len(count(record.value)) for record in await stored(transport, topic)) < wanted:
            await anyio.sleep(0.01)


def same_decision(found: Decision, plain: dict[str, Any]) -> bool:
    return msgspec.structs.asdict(found) | {"summary": msgspec.structs.asdict(found.summary)} == plain


def same_span(found: SpanData, plain: dict[str, Any]) -> bool:
    """Whether both have understood an item alike, bodies included."""
    mine = msgspec.structs.asdict(found)
    del mine["resource"]
    mine["events"] = [msgspec.structs.asdict(event) for event in found.events]
    mine["links"] = [msgspec.structs.asdict(link) for link in found.links]
    theirs = {name: value for name, value in plain.items() if name not in ("kind", "resource")}
    for name in ("trace_id", "span_id", "parent_span_id"):
        theirs[name] = None if theirs[name] is None else theirs[name].hex()
    return mine == theirs


async def test_all_topics_of_a_running_pipeline_are_read_alike(tmp_path: Path) -> None:
    overrides = {
        "topics": {"partitions": 4, "sampled_partitions": 2, "max_record_bytes": 10_000},
        "local": {"path": str(tmp_path / "log.db")},
        "pipeline": {"shutdown_timeout_s": DEADLINE},
    }
    settings = load_settings(env={}, overrides=overrides)
    topics = settings.topics
    async with ready_transport(settings) as transport:
        await run_pipeline(settings, transport)
        records = {topic: await stored(transport, topic) for topic in (topics.spans, topics.decisions, topics.dlq)}
        sampled = await stored(transport, topics.sampled)
        async with prela.kept_traces(None, settings=settings, follow=False) as traces:
            found = [trace async for trace in traces]

    for record in [*sampled, *(one for some in records.values() for one in some)]:
        form = dict(record.headers).get("prela-format")
        if form is not None:  # the stranger sends none
            plain_reader.READERS[form](record.value or b"")
    check_spans(records[topics.spans], topics.partitions)
    check_kept(sampled, found, topics.sampled_partitions)

    pairs = [
        (mine, plain)
        for record in records[topics.decisions]
        for mine, plain in zip(
            decode_decisions(record.value or b""), plain_reader.read_decisions(record.value or b""), strict=True
        )
    ]
    assert len(pairs) == 3
    assert all(same_decision(mine, plain) for mine, plain in pairs)
    (dead,) = records[topics.dlq]
    letter = plain_reader.read_dlq(dead.value or b"")
    letter["places"] = [tuple(place) for place in letter["places"]]
    assert letter == msgspec.structs.asdict(decode_dead_letter(dead.value or b""))
    assert (letter["index"], letter["raw"]) == (2, b"\x91\x00")


def check_spans(records: list[LogRecord], partitions: int) -> None:
    """Each item is read alike, and lies where the plain partitioner places it."""
    kinds = set()
    for record in records:
        value = record.value or b""
        batch = decode_batch(value)
        if batch.bad:
            continue  # the plain reader stops at an item without ids; a worker goes on
        plain = plain_reader.read_spans(value)["items"]
        assert len(plain) == len(batch.raws)
        for raw, one in zip(batch.raws, plain, strict=True):
            kinds.add(one["kind"])
            if one["trace_id"] is not None:
                assert plain_reader.partition_of(one["trace_id"], partitions) == record.partition
                if one["span_id"] is not None:
                    assert same_span(decode_span(raw), one)
    assert {"SPAN", "START", "TICK"} <= kinds


def check_kept(records: list[LogRecord], traces: list[prela.KeptTrace], partitions: int) -> None:
    """The plain reader puts together what `kept_traces` does."""
    plain: dict[bytes, dict[str, Any]] = {}
    for partition in range(partitions):
        mine = [record for record in records if record.partition == partition]
        for record in mine:
            assert record.key is not None
            assert plain_reader.partition_of(record.key, partitions) == partition
        plain |= plain_reader.joined(record.value or b"" for record in mine)
    assert len(records) > len(plain) + 1, "the large trace fits a record"
    assert plain.keys() == {trace.decision.trace_id for trace in traces}
    assert plain_reader.estimate(plain) == sum(trace.weight for trace in traces if not trace.late) == 2.0
    for trace_id, found in plain.items():
        spans = {span.span_id: span for trace in traces if trace.decision.trace_id == trace_id for span in trace.spans}
        assert {span_id.hex() for span_id in found["spans"]} == spans.keys()
        for one in found["spans"].values():
            assert same_span(spans[one["span_id"].hex()], one)
            assert spans[one["span_id"].hex()].resource.service_name == one["resource"]["service.name"]
        for about in found["decisions"].values():
            assert all(same_decision(trace.decision, about) for trace in traces if trace.decision.trace_id == trace_id)
    assert sorted(one["name"] for one in plain[STRANGE]["spans"].values()) == ["answer", "lookup", "lookup"]
    assert {one["resource"]["service.name"] for one in plain[STRANGE]["spans"].values()} == {"strange", "late"}
