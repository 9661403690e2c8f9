"""A reader (and a small writer) of all topics in plain Python, written from docs/wire.md only, without imports of this package.

It proves that the page is sufficient, so it repeats the page: names, defaults, what is skipped. Bytes stay bytes. `values` are
the values of records, as any Kafka client returns them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgpack

VERSION = 1
KINDS = ("SPAN", "START", "HEARTBEAT", "SUSPEND", "RESUME", "LOST", "TICK")
STATUSES = ("PENDING", "SUCCESS", "ERROR", "CANCELLED")
TYPES = ("AGENT", "LLM", "TOOL", "RETRIEVAL", "EMBEDDING", "CUSTOM")

REQUIRED = object()
ITEM = {
    "kind": REQUIRED, "trace_id": None, "span_id": None, "parent_span_id": None, "flags": 0, "status": 0, "revision": 0,
    "child_count": None, "inject_count": None, "inject_ordinal": None, "span_type": 5, "start_ns": 0, "duration_ns": None,
    "name": "", "randomness": None, "threshold": None, "attributes": {}, "events": [], "links": [], "status_message": None,
}  # fmt: skip
EVENT = {"name": REQUIRED, "time_ns": REQUIRED, "attributes": {}}
LINK = {"trace_id": REQUIRED, "span_id": REQUIRED, "attributes": {}}
SUMMARY = {
    "root_name": "", "service": "", "start_ns": 0, "duration_ns": 0, "spans": 0, "errors": 0, "input_tokens": 0,
    "output_tokens": 0, "cost_usd": None, "shape_hash": "", "outside_parent": 0,
}  # fmt: skip
DECISION = {
    "trace_id": REQUIRED, "decision_id": REQUIRED, "kept": REQUIRED, "probability": REQUIRED, "threshold": REQUIRED,
    "weight": REQUIRED, "policy": REQUIRED, "reason": REQUIRED, "trigger": REQUIRED, "complete": REQUIRED,
    "first_offset": REQUIRED, "cut_offset": REQUIRED, "decided_at_ms": REQUIRED, "policy_version": REQUIRED, "summary": [],
    "weight_biased": False, "repeated": False, "basis": None,
}  # fmt: skip
SAMPLED = {"decision": REQUIRED, "fragment": 0, "last": True, "late": False, "resources": [], "items": []}
DEAD = {
    "topic": REQUIRED, "partition": REQUIRED, "offset": REQUIRED, "index": REQUIRED, "reason": REQUIRED, "raw": REQUIRED,
    "count": 1, "places": [],
}  # fmt: skip


class PoisonError(ValueError):
    """A record that a reader of this version cannot decode."""


def body(value: bytes) -> Any:
    """The content after the version byte."""
    if not value or value[0] != VERSION:
        msg = f"expected version byte {VERSION}, got {value[:1].hex() or 'nothing'}"
        raise PoisonError(msg)
    # Text in the body of a span may be invalid UTF-8, which must not make the record unreadable.
    return msgpack.unpackb(value[1:], unicode_errors="replace", strict_map_key=False, timestamp=3)


def named(layout: dict[str, Any], array: Sequence[Any]) -> dict[str, Any]:
    """The fields of an array by name. Missing trailing fields have their default, extra ones are skipped."""
    found = dict(zip(layout, array, strict=False))
    for name, default in list(layout.items())[len(array) :]:
        if default is REQUIRED:
            msg = f"{name} is missing"
            raise PoisonError(msg)
        found[name] = default
    return found


def item(array: Sequence[Any]) -> dict[str, Any] | None:
    """The fields of an item by name, with names for its codes; None for an unknown kind."""
    if not 0 <= array[0] < len(KINDS):
        return None
    found = named(ITEM, array)
    found["kind"] = KINDS[found["kind"]]
    found["status"] = STATUSES[found["status"]]
    found["span_type"] = TYPES[found["span_type"]]
    found["events"] = [named(EVENT, event) for event in found["events"]]
    found["links"] = [named(LINK, link) for link in found["links"]]
    return found


def decision(array: Sequence[Any]) -> dict[str, Any]:
    """The fields of a decision by name."""
    found = named(DECISION, array)
    found["summary"] = named(SUMMARY, found["summary"])
    return found


def read_spans(value: bytes) -> dict[str, Any]:
    """A record of `spans`."""
    resource, arrays = body(value)[:2]
    return {"resource": resource, "items": [found for array in arrays if (found := item(array)) is not None]}


def read_sampled(value: bytes) -> dict[str, Any]:
    """A record of `sampled`. Items are pairs, as on the wire."""
    found = named(SAMPLED, body(value))
    found["decision"] = decision(found["decision"])
    pairs = [(place, item(array)) for place, array, *_ in found["items"]]
    found["items"] = [[place, one] for place, one in pairs if one is not None]
    return found


def read_decisions(value: bytes) -> list[dict[str, Any]]:
    """A record of `decisions`."""
    return [decision(array) for array in body(value)]


def read_dlq(value: bytes) -> dict[str, Any]:
    """A record of `dlq`."""
    return named(DEAD, body(value))


READERS = {b"spans/1": read_spans, b"sampled/1": read_sampled, b"decisions/1": read_decisions, b"dlq/1": read_dlq}
"""By the header `prela-format`."""


def joined(values: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """Kept traces of one partition of `sampled`, by trace id: its decisions, by their ids, and its spans, by theirs.

    Fragments, late ones, repeats of either and second decisions are put together. A trace without its last fragment is not there.
    """
    begun: dict[bytes, list[dict[str, Any]]] = {}
    traces: dict[bytes, dict[str, Any]] = {}
    for value in values:
        record = read_sampled(value)
        if record["late"]:
            _add(traces, [record])
            continue
        key = record["decision"]["decision_id"]
        parts = begun.setdefault(key, [])
        if record["fragment"] == len(parts):
            parts.append(record)
        if parts and parts[-1]["last"]:
            _add(traces, begun.pop(key))
    return traces


def _add(traces: dict[bytes, dict[str, Any]], records: Sequence[dict[str, Any]]) -> None:
    about = records[0]["decision"]
    trace = traces.setdefault(about["trace_id"], {"decisions": {}, "spans": {}})
    trace["decisions"][about["decision_id"]] = about
    for record in records:
        for place, one in record["items"]:
            if one["kind"] not in ("SPAN", "START"):
                continue
            span = {**one, "resource": record["resources"][place]}
            known = trace["spans"].get(one["span_id"])
            if known is None or _rank(span) > _rank(known):
                trace["spans"][one["span_id"]] = span


def _rank(span: dict[str, Any]) -> tuple[bool, int, bool]:
    return span["status"] != "PENDING", span["revision"], span["kind"] == "SPAN"


def estimate(traces: dict[bytes, dict[str, Any]]) -> float:
    """How many traces there were, by the weights of those that were kept: each decision once."""
    return sum(float(about["weight"]) for trace in traces.values() for about in trace["decisions"].values())


def write_spans(resource: dict[str, Any], arrays: Sequence[Sequence[Any]]) -> bytes:
    """The value of a record of `spans`."""
    packed: bytes = msgpack.packb([resource, list(arrays)])
    return bytes([VERSION]) + packed


def partition_of(trace_id: bytes, partitions: int) -> int:
    """Where a trace belongs."""
    return (murmur2(trace_id) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """As the page writes it down; unsigned."""

    def times(number: int) -> int:
        return number * 0x5BD1E995 & 0xFFFFFFFF

    h = 0x9747B28C ^ len(data)
    for word in words(data):
        k = times(word)
        h = times(h) ^ times(k ^ (k >> 24))
    if rest := data[len(data) // 4 * 4 :]:
        h = times(h ^ int.from_bytes(rest, "little"))
    h = times(h ^ (h >> 13))
    return h ^ (h >> 15)


def words(data: bytes) -> Iterator[int]:
    """Whole words of four bytes, little-endian."""
    for at in range(0, len(data) // 4 * 4, 4):
        yield int.from_bytes(data[at : at + 4], "little")
