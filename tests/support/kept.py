"""Builds kept traces: spans, decisions, fragments of `sampled`, and batches for a sink."""

from collections.abc import Sequence

import msgspec

from prela_stream.codec.sampled import KeptFragment, decode_kept, encode_kept
from prela_stream.codec.spans import encode_resource
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.model.span import COUNTED, Resource, SpanData, SpanEvent, SpanStatus, SpanType
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.fragments import FragmentJoiner
from prela_stream.sinks.kept_trace import KeptTrace, read_trace
from prela_stream.transport.base import TopicPartition
from tests.support.items import encode_span

SOURCE = TopicPartition("prela.sampled", 0)
SECOND = 1_000_000_000
NOW = 4_000_000_000 * SECOND
"""In the far future, so that no store deletes what these tests write."""


def trace_id(number: int) -> str:
    """A trace id that begins with the four hex digits of `number`."""
    return f"{number:04x}" + f"{number * 7919:028x}"


def span(number: int, index: int = 0, **changes: object) -> SpanData:
    """The span `index` of trace `number`: an agent, then its tools."""
    base = SpanData(
        trace_id=trace_id(number),
        span_id=f"{index + 1:016x}",
        parent_span_id=None if index == 0 else f"{1:016x}",
        name="plan trip" if index == 0 else f"tool {index}",
        span_type=SpanType.AGENT if index == 0 else SpanType.TOOL,
        status=SpanStatus.SUCCESS,
        start_ns=NOW + number * SECOND + index * 1_000_000,
        duration_ns=(100 - index) * 1_000_000,
        flags=0 if index == 0 else COUNTED,
        attributes={"city": f"Lisbon{number}", "nested": {"list": ["needle"]}},
        events=[SpanEvent("note", NOW, {"text": "haystack"})],
    )
    return msgspec.structs.replace(base, **changes)


def decision(number: int, **changes: object) -> Decision:
    """A decision to keep trace `number`, of two spans."""
    base = Decision(
        trace_id=bytes.fromhex(trace_id(number)),
        decision_id=number.to_bytes(16, "big"),
        kept=True,
        probability=0.5,
        threshold=1 << 55,
        weight=2.0,
        policy="slow",
        reason="duration over 10 s",
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=number,
        cut_offset=number + 1,
        decided_at_ms=(NOW + number * SECOND) // 1_000_000,
        policy_version="v1",
        summary=TraceSummary(
            root_name="plan trip",
            service="travel",
            start_ns=NOW + number * SECOND,
            duration_ns=100_000_000,
            spans=2,
            input_tokens=10 * number,
            output_tokens=number,
            cost_usd=0.01 * number,
        ),
    )
    return msgspec.structs.replace(base, **changes)


def fragment(about: Decision, spans: Sequence[SpanData], **changes: object) -> KeptFragment:
    """A record of `sampled`, encoded and decoded."""
    made = KeptFragment(
        decision=about,
        resources=[msgspec.Raw(encode_resource(Resource(service_name="travel", pid=7)))],
        items=[(0, msgspec.Raw(encode_span(one))) for one in spans],
    )
    return decode_kept(encode_kept(msgspec.structs.replace(made, **changes)))


def whole(number: int, spans: int = 2, **changes: object) -> KeptFragment:
    """Trace `number` in one fragment."""
    return fragment(decision(number, **changes), [span(number, index) for index in range(spans)])


def fragments_of(number: int, count: int) -> list[KeptFragment]:
    """Trace `number` as it is written if each of its spans fills a record."""
    about = decision(number)
    return [fragment(about, [span(number, at)], fragment=at, last=at == count - 1) for at in range(count)]


def joined(*fragments: KeptFragment) -> list[KeptTrace]:
    """The traces of these fragments, as a sink receives them."""
    joiner = FragmentJoiner()
    found = [joiner.add(one, offset=offset, timestamp_ms=0) for offset, one in enumerate(fragments)]
    assert joiner.first_offset() is None, "a fragment is missing"
    return [read_trace(one) for one in found if one]


def batch(*fragments: KeptFragment, next_offset: int = 1, decisions: Sequence[Decision] = ()) -> SinkBatch:
    """A batch of `SOURCE`."""
    return SinkBatch(source=SOURCE, traces=joined(*fragments), decisions=decisions, next_offset=next_offset)
