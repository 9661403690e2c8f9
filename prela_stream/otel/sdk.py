"""A span of OpenTelemetry's Python SDK as `ForeignSpan`. It reads public properties only and imports nothing of the SDK."""

import functools
from collections.abc import Mapping
from typing import Any, Final

from prela_stream.otel.spans import ForeignEvent, ForeignLink, ForeignSpan

_OF_THE_SDK: Final = ("telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version", "service.instance.id")
_UNKNOWN_SERVICE: Final = "unknown_service"
_MOST_RESOURCES: Final = 64
_resources: Final[dict[int, tuple[Any, dict[str, Any]]]] = {}
"""The attributes of each resource by the id of the object, and the object, so that no other one gets its id."""


def foreign_of(span: Any) -> ForeignSpan:
    """The span as the readers of other formats return it.

    Args:
        span: A `ReadableSpan`. One that has not ended has the end None.
    """
    context, parent, scope, status = span.context, span.parent, span.instrumentation_scope, span.status
    attributes, events, links = _copied(span.attributes), span.events, span.links
    for name, kept in (("dropped_attributes", attributes), ("dropped_events", events), ("dropped_links", links)):
        if kept and (number := getattr(span, name, 0)):
            attributes[f"otel.{name}_count"] = number
    return ForeignSpan(
        trace_id=context.trace_id.to_bytes(16),
        span_id=context.span_id.to_bytes(8),
        parent_span_id=None if parent is None else parent.span_id.to_bytes(8),
        name=span.name,
        kind=_small(span.kind),
        start_ns=max(span.start_time or 0, 0),
        end_ns=None if span.end_time is None else max(span.end_time, 0),
        status=_small(status.status_code),
        status_message=status.description,
        attributes=attributes,
        events=[
            ForeignEvent(name=event.name, time_ns=max(event.timestamp, 0), attributes=_copied(event.attributes))
            for event in events
        ]
        if events
        else [],
        links=[
            ForeignLink(
                trace_id=link.context.trace_id.to_bytes(16),
                span_id=link.context.span_id.to_bytes(8),
                attributes=_copied(link.attributes),
            )
            for link in links
        ]
        if links
        else [],
        scope_name="" if scope is None else scope.name,
        scope_version="" if scope is None else scope.version or "",
        remote_parent=None if parent is None else parent.is_remote,
    )


def resource_attributes_of(resource: Any) -> dict[str, Any]:
    """The attributes of a resource without those that the SDK always adds. The caller must not change the dict."""
    known = _resources.get(id(resource))
    if known is not None:
        return known[1]
    found = {key: value for key, value in resource.attributes.items() if key not in _OF_THE_SDK}
    if str(found.get("service.name", "")).startswith(_UNKNOWN_SERVICE):
        del found["service.name"]
    if len(_resources) >= _MOST_RESOURCES:
        _resources.clear()
    _resources[id(resource)] = (resource, found)
    return found


def _copied(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    # BoundedAttributes and dict have copy(), which is a third of the time of dict()
    return {} if attributes is None else attributes.copy()  # type: ignore[attr-defined]


@functools.cache
def _small(member: Any) -> Any:
    """The name of an enum's member in small letters."""
    return member.name.lower()
