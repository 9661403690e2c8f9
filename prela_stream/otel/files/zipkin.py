"""Zipkin's JSON format, version 2: a list of spans with microseconds, string tags, and ids of 64 or 128 bits.

A client and a server may report the same span id (B3's shared spans). The server's half becomes a child of the client's, with a
new id that is derived from it, because one of the two would otherwise be lost as a duplicate.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.ids import id_of
from prela_stream.otel.spans import ForeignEvent, ForeignSpan, Rejected, SpanKind
from prela_stream.otel.values import as_int, maps_in

_KINDS: Final[Mapping[str, SpanKind]] = {
    "CLIENT": "client",
    "SERVER": "server",
    "PRODUCER": "producer",
    "CONSUMER": "consumer",
}


def recognised(document: Any) -> bool:
    """Whether a document holds spans of Zipkin."""
    return next(_spans(document, "$"), None) is not None


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The spans of one trace, or of a list of traces."""
    spans: list[tuple[ForeignSpan, bool]] = []
    for place, span in _spans(document, "$"):
        try:
            spans.append((_span(span), span.get("shared") is True))
        except CodecError as error:
            yield Rejected(place=place, reason=str(error))
    yield from _without_twins(_without_shared(_merged(spans)))


def _spans(document: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(document, list):
        for index, one in enumerate(document):
            yield from _spans(one, f"{place}[{index}]")
    elif (
        isinstance(document, Mapping)
        and "traceId" in document
        and "id" in document
        and not ("observations" in document or "attributes" in document)  # Langfuse, JavaScript's SDK
    ):
        yield place, document


def _merged(spans: list[tuple[ForeignSpan, bool]]) -> list[tuple[ForeignSpan, bool]]:
    """Join what one side reported of a span several times: with the same start, or without one, such as a late annotation."""
    found: list[tuple[ForeignSpan, bool]] = []
    places: dict[tuple[Any, ...], list[int]] = {}
    for span, shared in spans:
        key = (span.trace_id, span.span_id, shared or span.kind == "server", str(span.resource.get("service.name")))
        known = places.setdefault(key, [])
        at = next(
            (one for one in known if span.start_ns in (found[one][0].start_ns, 0) or not found[one][0].start_ns), None
        )
        if at is None:
            known.append(len(found))
            found.append((span, shared))
        else:
            found[at] = (_joined(found[at][0], span), shared or found[at][1])
    return found


def _joined(one: ForeignSpan, other: ForeignSpan) -> ForeignSpan:
    starts = [span.start_ns for span in (one, other) if span.start_ns]
    ends = [span.end_ns or 0 for span in (one, other)]
    failed = next((span for span in (other, one) if span.status == "error"), one)
    return _replace(
        one,
        parent_span_id=one.parent_span_id or other.parent_span_id,
        name=one.name or other.name,
        kind=other.kind if one.kind == "internal" else one.kind,
        start_ns=min(starts, default=0),
        end_ns=max(ends),
        status=failed.status,
        status_message=failed.status_message,
        attributes={**one.attributes, **other.attributes},
        events=one.events + [event for event in other.events if event not in one.events],
        resource={**one.resource, **other.resource},
    )


def _without_twins(spans: Iterator[ForeignSpan]) -> Iterator[ForeignSpan]:
    """Give a span whose id another service has used an own one, below it."""
    seen: dict[tuple[bytes, bytes], int] = {}
    for span in spans:
        key = (span.trace_id, span.span_id)
        number = seen[key] = seen.get(key, -1) + 1
        if number == 0:
            yield span
            continue
        seed = b"twin" + span.trace_id + span.span_id + number.to_bytes(4, "big")
        own = hashlib.blake2b(seed, digest_size=8).digest()
        yield _replace(span, span_id=own, parent_span_id=span.span_id, remote_parent=True)


def _without_shared(spans: list[tuple[ForeignSpan, bool]]) -> Iterator[ForeignSpan]:
    """Give each server's half of a shared span an own id, below the client's. Several servers may receive one message.

    A child with the shared id as its parent belongs to the server of the same service that started last before it.
    """
    clients = {(span.trace_id, span.span_id) for span, shared in spans if not shared and span.kind != "server"}
    servers: dict[tuple[bytes, bytes], list[tuple[int, Any, bytes]]] = {}
    halves: list[ForeignSpan] = []
    others: list[ForeignSpan] = []
    for span, shared in spans:
        key = (span.trace_id, span.span_id)
        if not (shared or span.kind == "server") or key not in clients:
            others.append(span)
            continue
        known = servers.setdefault(key, [])
        seed = b"server" + span.trace_id + span.span_id + len(known).to_bytes(4, "big")
        own = hashlib.blake2b(seed, digest_size=8).digest()
        known.append((span.start_ns, span.resource.get("service.name"), own))
        halves.append(_replace(span, span_id=own, parent_span_id=span.span_id, remote_parent=True))
    yield from halves
    for span in others:
        above = servers.get((span.trace_id, span.parent_span_id or b""), ())
        own_service = sorted(one for one in above if one[1] == span.resource.get("service.name"))
        if not own_service:
            yield span
            continue
        started = [one for one in own_service if one[0] <= span.start_ns]
        yield _replace(span, parent_span_id=(started[-1] if started else own_service[0])[2])


def _replace(span: ForeignSpan, **changes: Any) -> ForeignSpan:
    return ForeignSpan(**{**{name: getattr(span, name) for name in span.__struct_fields__}, **changes})


def _span(span: Mapping[str, Any]) -> ForeignSpan:
    tags = span.get("tags")
    attributes: dict[str, Any] = dict(tags) if isinstance(tags, Mapping) else {}
    error = attributes.pop("error", None)
    resource: dict[str, Any] = {}
    for key, target, prefix in (("localEndpoint", resource, ""), ("remoteEndpoint", attributes, "peer.")):
        endpoint = span.get(key)
        if isinstance(endpoint, Mapping):
            names = {"serviceName": "service" if prefix else "service.name", "ipv4": "ip", "ipv6": "ip", "port": "port"}
            for field, name in names.items():
                if endpoint.get(field) not in (None, ""):
                    target[prefix + name if prefix else name if field == "serviceName" else f"net.host.{name}"] = (
                        endpoint[field]
                    )
    start_ns = max(as_int(span.get("timestamp")) or 0, 0) * 1000
    duration = as_int(span.get("duration"))
    parent = span.get("parentId")
    return ForeignSpan(
        trace_id=id_of(span.get("traceId"), 16, "trace id"),
        span_id=id_of(span.get("id"), 8, "span id"),
        parent_span_id=None if parent in (None, "") else id_of(parent, 8, "parent span id"),
        name=span["name"] if isinstance(span.get("name"), str) else "",
        kind=_KINDS.get(str(span.get("kind")), "internal"),
        start_ns=start_ns,
        end_ns=start_ns + max(duration or 0, 0) * 1000,
        status="unset" if error is None else "error",
        status_message=error if isinstance(error, str) and error not in ("", "true") else None,
        attributes=attributes,
        events=[
            ForeignEvent(name=str(one.get("value", "")), time_ns=max(as_int(one.get("timestamp")) or 0, 0) * 1000)
            for one in maps_in(span.get("annotations"))
        ],
        resource=resource,
    )
