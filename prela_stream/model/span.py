"""A finished span in its two forms: `SpanHead`, an item with its large parts left as bytes, and `SpanData`.

`SpanHead` is the layout of an item of the `spans` topic (docs/wire.md): its fields have fixed array indexes, and new fields are
only appended. `SpanData` is the public form: ids in hex, times as datetimes, attributes as a dict.
"""

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from prela_stream.model import semconv

# The valid ranges on the wire. Decoders check them, so that a value outside makes an item poison before any code uses it.
TraceId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
SpanId = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**62 - 1)]
"""Up to 146 years, so that a start, a duration and their sum fit into signed 64 bits."""
Bits56 = Annotated[int, msgspec.Meta(ge=0, le=2**56 - 1)]


class ItemKind(enum.IntEnum):
    """The kind of an item of the `spans` topic. Readers skip and count unknown kinds."""

    SPAN = 0
    """A span that ended, or with status PENDING the report of an open span."""
    START = 1
    """A span started and will end; sent for roots and AGENT spans."""
    HEARTBEAT = 2
    """The process with this open span is alive."""
    SUSPEND = 3
    """This span waits for something external, such as a person. Its trace must not be decided during the wait."""
    RESUME = 4
    """The wait of SUSPEND ended."""
    LOST = 5
    """The process dropped spans of this trace; without a trace id, of traces that it no longer knows."""
    TICK = 6
    """Only carries the log-append time of its record. A worker appends it to a silent partition. Has no trace id."""


class SpanType(enum.StrEnum):
    """The kind of work that a span represents."""

    __hash__ = str.__hash__  # that of Enum is a Python function

    AGENT = "AGENT"
    LLM = "LLM"
    TOOL = "TOOL"
    RETRIEVAL = "RETRIEVAL"
    EMBEDDING = "EMBEDDING"
    CUSTOM = "CUSTOM"

    @classmethod
    def _missing_(cls, value: object) -> "SpanType | None":
        return (
            cls.__members__.get(value.upper()) if isinstance(value, str) else None
        )  # the ancestor wrote small letters


OPERATION_NAMES: Final[Mapping[SpanType, str]] = {
    SpanType.AGENT: "invoke_agent",
    SpanType.LLM: "chat",
    SpanType.TOOL: "execute_tool",
    SpanType.RETRIEVAL: "retrieval",
    SpanType.EMBEDDING: "embeddings",
}
"""The `gen_ai.operation.name` that is written for a span type. CUSTOM has none."""


class SpanStatus(enum.StrEnum):
    """The state of a span, or how it ended."""

    __hash__ = str.__hash__  # as in SpanType

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    CANCELLED = "CANCELLED"

    @classmethod
    def _missing_(cls, value: object) -> "SpanStatus | None":
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None  # as in SpanType


SPAN_TYPES: Final = tuple(SpanType)
"""Wire code (the index) of each span type."""
SPAN_STATUSES: Final = tuple(SpanStatus)
"""Wire code (the index) of each status."""
SPAN_TYPE_CODES: Final[Mapping[SpanType, int]] = {kind: code for code, kind in enumerate(SPAN_TYPES)}
SPAN_STATUS_CODES: Final[Mapping[SpanStatus, int]] = {status: code for code, status in enumerate(SPAN_STATUSES)}

PENDING, SUCCESS, ERROR, CANCELLED = range(4)
"""Wire codes of the statuses, for code that compares heads."""

COUNTED: Final = 1
"""Flag: the parent's `child_count` includes this span."""
AFTER_END: Final = 2
"""Flag: started after its parent ended, so no `child_count` includes it."""
REMOTE_PARENT: Final = 4
"""Flag: the parent is in another process; its context came by propagation."""
BY_PROCESSOR: Final = 8
"""Flag: a span of another tracer. The counting processor of its process counted its children."""
NOT_COUNTED: Final = 16
"""Flag: a span of another tracer, which counts no children."""
FOREIGN: Final = BY_PROCESSOR | NOT_COUNTED

EMPTY_MAP: Final = msgspec.Raw(b"\x80")
EMPTY_ARRAY: Final = msgspec.Raw(b"\x90")


class ItemHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The first fields of an item of the `spans` topic, which assembly needs. Decoding skips the other fields in C."""

    kind: int
    trace_id: TraceId | None = None
    """16 raw bytes; None for TICK, and for LOST when the process no longer knows which traces lost spans."""
    span_id: SpanId | None = None
    """8 raw bytes; None for TICK and LOST."""
    parent_span_id: SpanId | None = None
    flags: Count = 0
    """COUNTED | AFTER_END | REMOTE_PARENT | BY_PROCESSOR | NOT_COUNTED."""
    status: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    """Index into SPAN_STATUSES."""
    revision: Count = 0
    """If a span is reported several times, the highest revision wins."""
    child_count: Count | None = None
    """Number of local children started before this span ended; None if they were not counted (foreign spans)."""
    inject_count: Count | None = None
    """Number of injects: contexts of this span passed to other processes."""
    inject_ordinal: Count | None = None
    """With REMOTE_PARENT: the inject of the parent (0, 1, …) that this span comes from. None if the parent's process does not
    count injects; this span is then a local root."""


class SpanFields(ItemHead, frozen=True, array_like=True, gc=False):
    """An item of the `spans` topic without its body."""

    span_type: Annotated[int, msgspec.Meta(ge=0, le=5)] = 5
    """Index into SPAN_TYPES."""
    start_ns: Nanoseconds = 0
    """Wall clock at the start, ns since the epoch. For SUSPEND, RESUME and HEARTBEAT: at the creation of the item."""
    duration_ns: Nanoseconds | None = None
    """Monotonic duration in ns; None while the span is open."""
    name: str = ""
    randomness: Bits56 | None = None
    """Explicit randomness (`ot=rv`), 56 bits; None: the last 56 bits of the trace id."""
    threshold: Bits56 | None = None
    """Head-sampling rejection threshold (`ot=th`), 56 bits; None: no head sampling happened."""

    @property
    def end_ns(self) -> int | None:
        """Start plus duration, ns since the epoch; None while the span is open."""
        return None if self.duration_ns is None else self.start_ns + self.duration_ns


class SpanHead(SpanFields, frozen=True, array_like=True, gc=False):
    """A whole item of the `spans` topic with attributes, events and links left as bytes."""

    attributes: msgspec.Raw = EMPTY_MAP
    events: msgspec.Raw = EMPTY_ARRAY
    links: msgspec.Raw = EMPTY_ARRAY
    status_message: str | None = None


class SpanEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event at one moment of a span."""

    name: str
    time_ns: int
    """ns since the epoch."""
    attributes: dict[str, Any] = {}

    @property
    def timestamp(self) -> datetime:
        """The moment as an aware datetime in UTC (microseconds)."""
        return to_datetime(self.time_ns)

    def to_dict(self) -> dict[str, Any]:
        """`timestamp` (ISO 8601), `name` and `attributes`, as in the ancestor SDK."""
        return {"timestamp": self.timestamp.isoformat(), "name": self.name, "attributes": self.attributes}


class SpanLink(msgspec.Struct, frozen=True, array_like=True):
    """A reference to a related span, of this or another trace, that is not the parent."""

    trace_id: TraceId
    span_id: SpanId
    attributes: dict[str, Any] = {}


class Resource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The resource of a process, shared by all its spans. On the wire it is a map with OpenTelemetry's attribute names."""

    service_name: str = msgspec.field(default="", name="service.name")
    sdk_version: str = msgspec.field(default="", name="telemetry.sdk.version")
    host: str = msgspec.field(default="", name="host.name")
    pid: int = msgspec.field(default=0, name="process.pid")
    instance_id: str = msgspec.field(default="", name="service.instance.id")
    """Random hex of this process's pipeline, which distinguishes a restarted process from its predecessor."""
    heartbeat_ms: int = msgspec.field(default=0, name="prela.heartbeat_ms")
    """Interval of heartbeats for open spans, ms; 0: this process sends none."""
    attributes: dict[str, Any] = {}
    """Other resource attributes that the user set."""


class SpanData(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished span. Ids are lower-case hex of W3C length, times are ns since the epoch."""

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    name: str
    span_type: SpanType = SpanType.CUSTOM
    status: SpanStatus = SpanStatus.PENDING
    status_message: str | None = None
    start_ns: int
    duration_ns: int | None = None
    child_count: int | None = None
    inject_count: int | None = None
    inject_ordinal: int | None = None
    flags: int = 0
    revision: int = 0
    randomness: int | None = None
    threshold: int | None = None
    attributes: dict[str, Any] = {}
    events: list[SpanEvent] = []
    links: list[SpanLink] = []
    resource: Resource = Resource()

    @property
    def started_at(self) -> datetime:
        """The start as an aware datetime in UTC (microseconds)."""
        return to_datetime(self.start_ns)

    @property
    def end_ns(self) -> int | None:
        """Start plus duration, ns since the epoch; None while the span is open."""
        return None if self.duration_ns is None else self.start_ns + self.duration_ns

    @property
    def ended_at(self) -> datetime | None:
        """The end as an aware datetime in UTC (microseconds); None while the span is open."""
        return None if self.end_ns is None else to_datetime(self.end_ns)

    @property
    def duration_ms(self) -> float | None:
        """The duration in milliseconds; None while the span is open."""
        return None if self.duration_ns is None else self.duration_ns / 1e6

    def attribute(self, name: str) -> Any:
        """An attribute under any of its names: OpenTelemetry's, OpenInference's or the ancestor SDK's; None if it is missing.

        `llm.model` finds `gen_ai.request.model` and the reverse; `llm.total_tokens` and `llm.latency_ms` are derived.
        """
        return semconv.look_up(self.attributes, name, self.duration_ms)

    def to_dict(self) -> dict[str, Any]:
        """The span as a dict with the keys of the ancestor SDK; times are ISO 8601, types and statuses their names."""
        return to_dict(self)


def to_dict(span: Any) -> dict[str, Any]:
    """A span, live or finished, as a dict; see `SpanData.to_dict`."""
    return {
        "span_id": span.span_id,
        "trace_id": span.trace_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "span_type": span.span_type.value,
        "started_at": span.started_at.isoformat(),
        "ended_at": None if span.ended_at is None else span.ended_at.isoformat(),
        "status": span.status.value,
        "status_message": span.status_message,
        "attributes": dict(span.attributes),
        "events": [event.to_dict() for event in span.events],
        "duration_ms": span.duration_ms,
    }


def to_datetime(time_ns: int) -> datetime:
    """An aware UTC datetime of ns since the epoch, cut to microseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
