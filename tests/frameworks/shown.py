"""What of a span has to be the same by either way."""

from typing import Any

from prela_stream.model.span import SpanData


def shown(span: SpanData) -> dict[str, Any]:
    """The parts of a span that are compared."""
    return {
        "id": span.span_id,
        "parent": span.parent_span_id,
        "name": span.name,
        "type": span.span_type.name,
        "status": span.status.name,
        "attributes": span.attributes,
        "events": [event.name for event in span.events],
    }
