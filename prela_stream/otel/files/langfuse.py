"""An export of Langfuse: `{"trace": {…}, "observations": […]}`, a list of such, or a trace with its observations inside.

Ids are those of OpenTelemetry where the spans came from there; other SDKs of Langfuse use UUIDs, whose ids become hashes.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.ids import id_or_hash
from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otel.values import as_map, parsed

_COPIED: Final[Mapping[str, str]] = {
    "input": "langfuse.observation.input",
    "output": "langfuse.observation.output",
    "model": "langfuse.observation.model.name",
    "modelParameters": "langfuse.observation.model.parameters",
    "usageDetails": "langfuse.observation.usage_details",
    "costDetails": "langfuse.observation.cost_details",
    "promptName": "langfuse.observation.prompt.name",
    "promptVersion": "langfuse.observation.prompt.version",
    "completionStartTime": "langfuse.observation.completion_start_time",
    "level": "langfuse.observation.level",
    "version": "langfuse.version",
    "environment": "langfuse.environment",
}
_OF_TRACE: Final[Mapping[str, str]] = {
    "userId": "langfuse.user.id",
    "sessionId": "langfuse.session.id",
    "tags": "langfuse.trace.tags",
    "release": "langfuse.release",
    "name": "langfuse.trace.name",
}
_TOKENS: Final[Mapping[str, str]] = {"promptTokens": "input", "completionTokens": "output", "totalTokens": "total"}


def recognised(document: Any) -> bool:
    """Whether a document is an export of Langfuse."""
    return next(_exports(document, "$"), None) is not None


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The observations of one or several traces."""
    for place, trace, observations in _exports(document, "$"):
        for index, one in enumerate(observations):
            try:
                yield _span(one, trace)
            except CodecError as error:
                yield Rejected(place=f"{place}.observations[{index}]", reason=str(error))


def _exports(document: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any], list[Any]]]:
    if isinstance(document, list):
        if document and all(
            isinstance(one, Mapping) and "traceId" in one and "startTime" in one and "type" in one for one in document
        ):
            yield place, {}, document
            return
        for index, one in enumerate(document):
            yield from _exports(one, f"{place}[{index}]")
    elif isinstance(document, Mapping):
        if isinstance(observations := document.get("observations"), list):
            trace = document.get("trace")
            yield place, trace if isinstance(trace, Mapping) else document, observations
        elif all(key in document for key in ("traceId", "startTime", "type", "id")):
            yield place, {}, [document]
        elif isinstance(data := document.get("data"), list):
            yield from _exports(data, f"{place}.data")


def _span(one: Any, trace: Mapping[str, Any]) -> ForeignSpan:
    if not isinstance(one, Mapping):
        msg = f"expected an observation as an object, found {type(one).__name__}"
        raise CodecError(msg)
    metadata = as_map(one.get("metadata"))
    inner = as_map(metadata.get("attributes"))
    attributes: dict[str, Any] = {str(key): value for key, value in inner.items()}
    attributes.update(
        {f"langfuse.observation.metadata.{key}": value for key, value in metadata.items() if key not in _FROM_OTEL}
    )
    attributes["langfuse.observation.type"] = str(one.get("type", "SPAN")).lower()
    for key, name in _COPIED.items():
        if (value := one.get(key)) not in (None, "", {}, []):
            attributes[name] = parsed(value)
    usage = one.get("usage")
    if isinstance(usage, Mapping) and not one.get("usageDetails"):
        counts = {_TOKENS.get(key, key): value for key, value in usage.items() if isinstance(value, int)}
        attributes["langfuse.observation.usage_details"] = counts
    for key, name in _OF_TRACE.items():
        if (value := trace.get(key)) not in (None, "", []) and (
            key in ("userId", "sessionId") or not one.get("parentObservationId")
        ):
            attributes.setdefault(name, value)
    for replaced in ("input.value", "output.value", "llm.model_name"):
        if attributes.get(replaced) is not None and one.get(
            {"input.value": "input", "output.value": "output"}.get(replaced, "model")
        ):
            del attributes[replaced]
    resource = {str(key): value for key, value in as_map(metadata.get("resourceAttributes")).items()}
    scope = as_map(metadata.get("scope"))
    parent = one.get("parentObservationId") or one.get("parentSpanId")
    failed = str(one.get("level", "")).upper() == "ERROR"
    end = nanoseconds_of(one.get("endTime"))
    start = nanoseconds_of(one.get("startTime")) or 0
    if end is None and str(one.get("type", "")).upper() == "EVENT":
        end = start
    return ForeignSpan(
        trace_id=id_or_hash(one.get("traceId") or trace.get("id"), 16, "trace id"),
        span_id=id_or_hash(one.get("id"), 8, "span id"),
        parent_span_id=None if parent in (None, "") else id_or_hash(parent, 8, "parent span id"),
        name=one["name"] if isinstance(one.get("name"), str) else "",
        start_ns=start,
        end_ns=end,
        status="error" if failed else "unset",
        status_message=one["statusMessage"] if isinstance(one.get("statusMessage"), str) else None,
        attributes=attributes,
        resource=resource,
        scope_name=str(scope.get("name", "")),
        scope_version=str(scope.get("version", "")),
    )


_FROM_OTEL: Final = frozenset({"attributes", "resourceAttributes", "scope"})


def nanoseconds_of(value: Any) -> int | None:
    """An ISO 8601 time as ns since the epoch (µs precision); None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return max((since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000, 0)
