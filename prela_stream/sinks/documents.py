"""Decisions and spans as JSON documents, for the JSONL sink and for `--json` of the command line. Pure."""

from typing import Any

from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData


def decision_document(decision: Decision) -> dict[str, Any]:
    """A decision by its field names; ids in hex."""
    document = {name: getattr(decision, name) for name in decision.__struct_fields__}
    document["trace_id"] = decision.trace_id.hex()
    document["decision_id"] = decision.decision_id.hex()
    document["summary"] = {name: getattr(decision.summary, name) for name in decision.summary.__struct_fields__}
    return document


def span_document(span: SpanData) -> dict[str, Any]:
    """A span by its field names; ids in hex, times in ns since the epoch."""
    document = {name: getattr(span, name) for name in span.__struct_fields__}
    document["events"] = [
        {"name": event.name, "time_ns": event.time_ns, "attributes": event.attributes} for event in span.events
    ]
    document["links"] = [
        {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": link.attributes}
        for link in span.links
    ]
    return document
