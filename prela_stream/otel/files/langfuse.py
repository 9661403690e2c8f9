"""An export of Langfuse: `{"trace": {…}, "observations": […]}`, a list of such, a trace with its observations inside, or
observations alone, as its API and its export to a blob store write them.

Ids are those of OpenTelemetry where the spans came from there; other SDKs of Langfuse use UUIDs, whose ids become hashes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.errors import CodecError
from prela_stream.otel.files.times import moment_of
from prela_stream.otel.ids import id_or_hash
from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otel.values import as_float, as_int, as_map, json_string, parsed

_COPIED: Final[Mapping[str, str]] = {
    "input": "langfuse.observation.input",
    "output": "langfuse.observation.output",
    "model": "langfuse.observation.model.name",
    "providedModelName": "langfuse.observation.model.name",
    "modelParameters": "langfuse.observation.model.parameters",
    "toolDefinitions": "langfuse.observation.tool_definitions",
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
_COUNTS: Final = (
    ("input", ("promptTokens", "inputUsage")),
    ("output", ("completionTokens", "outputUsage")),
    ("total", ("totalTokens", "totalUsage")),
)
"""Counts beside the maps."""
_COSTS: Final = ("totalCost", "calculatedTotalCost")
_WORD: Final = re.compile(r"_([a-z])")


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
        if document and all(map(_is_observation, document)):
            yield place, {}, document
            return
        for index, one in enumerate(document):
            yield from _exports(one, f"{place}[{index}]")
    elif isinstance(document, Mapping):
        trace = document.get("trace")
        if isinstance(observations := document.get("observations"), list):
            yield place, trace if isinstance(trace, Mapping) else document, observations
        elif isinstance(trace, Mapping) and isinstance(trace.get("observations"), list):
            yield f"{place}.trace", trace, trace["observations"]
        elif _is_observation(document):
            yield place, {}, [document]
        elif isinstance(data := document.get("data"), list):
            yield from _exports(data, f"{place}.data")


def _is_observation(one: Any) -> bool:
    return isinstance(one, Mapping) and (
        all(key in one for key in ("id", "type", "traceId", "startTime"))
        or all(key in one for key in ("id", "type", "trace_id", "start_time"))
    )


def _span(one: Any, trace: Mapping[str, Any]) -> ForeignSpan:
    if not isinstance(one, Mapping):
        msg = f"expected an observation as an object, found {type(one).__name__}"
        raise CodecError(msg)
    if "traceId" not in one and "trace_id" in one:  # of an export to a blob store
        one = {_WORD.sub(lambda found: found[1].upper(), key): value for key, value in one.items()}
    metadata = as_map(one.get("metadata"))
    inner = as_map(metadata.get("attributes"))
    attributes: dict[str, Any] = {str(key): value for key, value in inner.items()}
    attributes.update(
        {f"langfuse.observation.metadata.{key}": value for key, value in metadata.items() if key not in _FROM_OTEL}
    )
    attributes["langfuse.observation.type"] = str(one.get("type", "SPAN")).lower()
    for key, name in _COPIED.items():
        if (value := one.get(key)) not in (None, "", {}, []):
            attributes[name] = parsed(json_string(value) if key in ("input", "output") else value)
    attributes.update(_usage(one))
    for key, name in _OF_TRACE.items():
        own = one.get(key) if key in ("userId", "sessionId") else None
        if (value := own or trace.get(key)) not in (None, "", []) and (
            key in ("userId", "sessionId") or not one.get("parentObservationId")
        ):
            attributes.setdefault(name, value)
    for replaced, by in _REPLACED.items():
        if attributes.get(replaced) is not None and one.get(by):
            del attributes[replaced]
    resource = {str(key): value for key, value in as_map(metadata.get("resourceAttributes")).items()}
    scope = as_map(metadata.get("scope"))
    parent = one.get("parentObservationId") or one.get("parentSpanId")
    failed = str(one.get("level", "")).upper() == "ERROR"
    end = moment_of(one.get("endTime"))
    start = moment_of(one.get("startTime")) or 0
    if end is None and str(one.get("type", "")).upper() == "EVENT":
        end = start
    return ForeignSpan(
        trace_id=id_or_hash(one.get("traceId") or trace.get("id"), 16, "trace id"),
        span_id=id_or_hash(one.get("id"), 8, "span id"),
        parent_span_id=None if parent in (None, "", one.get("traceId")) else id_or_hash(parent, 8, "parent span id"),
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
_REPLACED: Final = {"input.value": "input", "output.value": "output", "llm.model_name": "model"}
"""Attributes that a field of the observation repeats."""


def _usage(one: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Counts and costs that are not in `usageDetails` and `costDetails`."""
    if not one.get("usageDetails"):
        usage = one.get("usage")
        source = usage if isinstance(usage, Mapping) else {}
        counts = {_TOKENS.get(key, key): count for key, value in source.items() if (count := as_int(value)) is not None}
        for name, keys in _COUNTS:
            if name not in counts and (count := next(filter(None, (as_int(one.get(key)) for key in keys)), None)):
                counts[name] = count
        if counts:
            yield "langfuse.observation.usage_details", counts
    if not one.get("costDetails") and (cost := next(filter(None, (as_float(one.get(key)) for key in _COSTS)), None)):
        yield "langfuse.observation.cost_details", {"total": cost}
