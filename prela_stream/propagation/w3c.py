"""Writes and reads the context of a trace: W3C `traceparent`, `tracestate` and `baggage`, in headers of any shape.

Incoming headers are hostile input: an invalid header counts as absent, and nothing here raises.

Source: W3C Trace Context level 2; W3C Baggage.
"""

import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from prela_stream.errors import guard
from prela_stream.propagation import tracestate
from prela_stream.propagation.carriers import (
    BAGGAGE,
    TRACEPARENT,
    TRACESTATE,
    read_headers,
    write_asgi,
    write_kafka,
    write_mapping,
)
from prela_stream.propagation.tracestate import TraceState
from prela_stream.tracing.context import TraceContext, parent_of
from prela_stream.tracing.current import current
from prela_stream.tracing.parent import Parent
from prela_stream.tracing.session import outgoing_baggage
from prela_stream.tracing.span import Span

_SAMPLED: Final = 1
_RANDOM: Final = 2
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_MAX_BAGGAGE: Final = 8_192
_MAX_ENTRIES: Final = 64
_SAFE_IN_BAGGAGE: Final = "!#$&'()*+-./:<=>?@[]^_`{|}~"


def inject(carrier: MutableMapping[str, str], parent: Parent | None = None) -> MutableMapping[str, str]:
    """Write the headers with which another process continues the trace, and count this inject in the span.

    Args:
        carrier: Any mutable mapping of header names to text. Former values of these headers are replaced.
        parent: The span or trace context that is the parent there; None: the current one.

    Returns:
        The carrier. It is unchanged if there is no trace to continue.
    """
    with guard("inject"):
        write_mapping(carrier, headers(parent))
    return carrier


def inject_asgi(target: list[tuple[bytes, bytes]], parent: Parent | None = None) -> list[tuple[bytes, bytes]]:
    """As `inject`, for an ASGI list of headers: pairs of bytes. Returns the list, changed in place."""
    with guard("inject_asgi"):
        write_asgi(target, headers(parent))
    return target


def inject_kafka(target: list[tuple[str, bytes]], parent: Parent | None = None) -> list[tuple[str, bytes]]:
    """As `inject`, for the headers of a Kafka message: pairs of text and bytes. Returns the list, changed in place."""
    with guard("inject_kafka"):
        write_kafka(target, headers(parent))
    return target


def headers(parent: Parent | None = None) -> dict[str, str]:
    """The headers that `inject` writes. Each call is counted as one inject, and the worker waits for its spans."""
    span_id: bytes | None
    parent = current() if parent is None else parent_of(parent)
    if isinstance(parent, Span):
        trace, span_id, ordinal = parent._trace, parent._id, parent._count_inject()
    elif isinstance(parent, TraceContext):
        trace, span_id, ordinal = parent, parent.raw_span_id, parent.inject_ordinal
    else:
        return {}
    written: dict[str, str] = {}
    if span_id is not None:
        flags = (_SAMPLED if trace.sampled else 0) | (_RANDOM if trace.random else 0)
        written[TRACEPARENT] = f"00-{trace.raw_trace_id.hex()}-{span_id.hex()}-{flags:02x}"
        state = TraceState(
            trace.tracestate, trace.threshold if trace.sampled else None, trace.randomness, span_id, ordinal
        )
        if text := tracestate.render(state):
            written[TRACESTATE] = text
    baggage = outgoing_baggage(trace.baggage)
    if baggage and (text := _render_baggage(baggage)):
        written[BAGGAGE] = text
    return written


def extract(carrier: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> TraceContext | None:
    """Read the context of a trace from another process.

    Args:
        carrier: Any mapping of header names, in any case, to text, bytes or lists of these; or pairs, as in ASGI
            (bytes, bytes) and Kafka (text, bytes).

    Returns:
        A context for `attach()` or for the `parent` of a span, which is then a child of the remote span. None if the headers
        contain no trace. If they contain baggage only, the context of a new trace with this baggage.
    """
    with guard("extract"):
        found = read_headers(carrier)
        baggage = _parse_baggage(found.get(BAGGAGE, ""))
        parent = _TRACEPARENT.match(found.get(TRACEPARENT, "").strip(" \t"))
        if parent is None or not _is_valid(parent):
            return TraceContext(sampled=None, baggage=baggage) if baggage else None
        flags = int(parent[4], 16)
        context = TraceContext(parent[2], bool(flags & _SAMPLED), baggage, span_id=parent[3])
        context.random = bool(flags & _RANDOM)
        state = tracestate.parse(found.get(TRACESTATE, ""))
        context.tracestate, context.threshold, context.randomness = state.others, state.threshold, state.randomness
        if state.parent_span_id == context.raw_span_id:
            context.inject_ordinal = state.ordinal
        return context
    return None


def _is_valid(parent: re.Match[str]) -> bool:
    version, trace_id, span_id, _, more = parent.groups()
    return version != "ff" and not (version == "00" and more) and bool(int(trace_id, 16)) and bool(int(span_id, 16))


def _parse_baggage(header: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for part in header[:_MAX_BAGGAGE].split(",")[:_MAX_ENTRIES]:
        key, equals, value = part.partition(";")[0].partition("=")
        key = key.strip(" \t")
        if equals and _TOKEN.match(key):
            entries[key] = unquote_to_bytes(value.strip(" \t")).decode(errors="replace")
    return entries


def _render_baggage(baggage: Mapping[str, str]) -> str:
    texts: list[str] = []
    length = -1
    for key, value in list(baggage.items())[:_MAX_ENTRIES]:
        text = f"{key}={quote(value, safe=_SAFE_IN_BAGGAGE, errors='replace')}"
        if _TOKEN.match(key) and length + 1 + len(text) <= _MAX_BAGGAGE:
            texts.append(text)
            length += 1 + len(text)
    return ",".join(texts)
