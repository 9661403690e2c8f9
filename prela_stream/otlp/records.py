"""Packs foreign spans into records of `spans`. Each record has the spans of one process and of one partition."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.errors import guarded
from prela_stream.model.ids import partition_of
from prela_stream.model.plain import cut_text
from prela_stream.model.semconv import TRUNCATED
from prela_stream.otel.items import encode_foreign, resource_of
from prela_stream.otel.spans import ForeignSpan
from prela_stream.privacy.encoding import DEFAULT_LIMIT, sanitized
from prela_stream.privacy.media import may_hold_media
from prela_stream.privacy.rules import Privacy
from prela_stream.transport.base import Record
from prela_stream.transport.options import TopicOptions

_HEADERS: Final = ((FORMAT_HEADER, SPANS_FORMAT),)
_MOST_ITEMS: Final = 1_000
_MOST_BYTES: Final = 256 << 10
_ROOM: Final = 1 << 10
"""Bytes of a record beside the resource and the items."""
_RESOURCE_SHARE: Final = 8
"""A resource larger than this fraction of a record loses its attributes, because every record repeats it."""


class PackedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of `spans`."""

    partition: int
    record: Record
    spans: int
    size: int
    """Bytes of the value."""


class _Group:
    """The items of a record that is being filled."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.size = 0


class SpanRecords:
    """Collects spans and returns them as records.

    Args:
        topics: Partitions and limits of `spans`.
        privacy: What is removed from each span.
    """

    def __init__(self, topics: TopicOptions, privacy: Privacy) -> None:
        self._partitions = topics.partitions
        self._max_record_bytes = topics.max_record_bytes
        self._max_resource_bytes = topics.max_record_bytes // _RESOURCE_SHARE
        self._privacy = privacy
        self._has_rules = privacy.is_active
        self._groups: dict[tuple[int, bytes], _Group] = {}
        self._full: list[PackedRecord] = []
        self._attributes: Mapping[str, Any] | None = None
        """Of the last span. Spans of one process share the object."""
        self._resource = b""
        self._most_bytes = 0
        self._item_limit = 0
        self.spans = 0
        """Spans that were added and not taken."""

    @guarded("otlp.span")
    def add_safely(self, span: ForeignSpan) -> bool:
        """As `add`; None, after it is logged, if a defect prevents it."""
        self.add(span)
        return True

    def add(self, span: ForeignSpan) -> None:
        """Add a span. A span above the limit of a record is cut."""
        if span.resource is not self._attributes:
            self._use_resource(span.resource)
        item = encode_foreign(span)
        if self._has_rules or len(item) > self._item_limit or may_hold_media(item):
            item = sanitized(item, self._privacy, self._item_limit)
        key = (partition_of(span.trace_id, self._partitions), self._resource)
        group = self._groups.get(key)
        size = len(item)
        if group is None:
            group = self._groups[key] = _Group()
        elif group.size + size > self._most_bytes or len(group.items) >= _MOST_ITEMS:
            self._full.append(_packed(key, group))
            group = self._groups[key] = _Group()
        group.items.append(item)
        group.size += size
        self.spans += 1

    def take(self) -> list[PackedRecord]:
        """Remove and return everything."""
        records = [*self._full, *(_packed(key, group) for key, group in self._groups.items())]
        self._full, self._groups, self.spans = [], {}, 0
        return records

    def take_full(self) -> list[PackedRecord]:
        """Remove and return the records to which nothing more can be added."""
        records, self._full = self._full, []
        self.spans -= sum(record.spans for record in records)
        return records

    def _use_resource(self, attributes: dict[str, Any]) -> None:
        resource = resource_of(attributes)
        encoded = encode_resource(resource)
        if len(encoded) > self._max_resource_bytes:
            name = cut_text(str(resource.service_name))
            encoded = encode_resource(
                msgspec.structs.replace(resource, service_name=name, attributes={TRUNCATED: len(encoded)})
            )
        room = self._max_record_bytes - _ROOM - len(encoded)
        self._attributes, self._resource = attributes, encoded
        self._most_bytes, self._item_limit = min(_MOST_BYTES, room), min(DEFAULT_LIMIT, room)


def _packed(key: tuple[int, bytes], group: _Group) -> PackedRecord:
    value = encode_batch(key[1], group.items)
    record = Record(value=value, headers=_HEADERS)
    return PackedRecord(partition=key[0], record=record, spans=len(group.items), size=len(value))
