"""The attributes of a foreign span in the terms of `model.semconv`. Every way in uses it: bridge, OTLP, topics and files.

Known facts get one name and one shape. The attributes that they came from are removed. Everything else passes through unchanged,
so that nothing is lost. docs/wire.md has the names.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from prela_stream.errors import guarded
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.otel import content, sources
from prela_stream.otel.answers import INCLUDES, facts_of_answers, has_parts
from prela_stream.otel.evidence import span_type_of
from prela_stream.otel.finish_reasons import finish_reasons_of, normalise_finish_reason
from prela_stream.otel.names import PARAMETERS, provider_of
from prela_stream.otel.shapes import MILLISECONDS, STARTED, Shape, shape_of
from prela_stream.otel.spans import ForeignEvent, ForeignSpan
from prela_stream.otel.usage import usage_of
from prela_stream.otel.values import as_float, as_int, as_map, is_below, nested, parsed, text, undotted

_TOTALS: Final = (
    "gen_ai.usage.total_tokens",
    "llm.token_count.total",
    "llm.usage.total_tokens",
    "ai.usage.totalTokens",
)
_STATUSES: Final = {"unset": SpanStatus.SUCCESS, "ok": SpanStatus.SUCCESS, "error": SpanStatus.ERROR}
_WITHOUT_MESSAGES: Final = frozenset({SpanType.TOOL, SpanType.RETRIEVAL, SpanType.EMBEDDING})
_IN_ANSWERS: Final = (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS, semconv.FINISH_REASONS)
"""An answer is only parsed if one of these is missing, or if it has parts of a usage that no attribute has."""
_GIVEN: Final = (
    *("langfuse.observation.input", "traceloop.entity.input", "input.value", "mcp.request.argument", "genkit:input"),
    *("mlflow.spanInputs", "lmnr.span.input", "gen_ai.prompt", "input"),
)
_RETURNED: Final = (
    *("gen_ai.output", "genai.output", "langfuse.observation.output", "traceloop.entity.output", "output.value"),
    *("mcp.response.value", "genkit:output", "mlflow.spanOutputs", "lmnr.span.output", "gen_ai.completion"),
    "output",
)
"""Attributes with the arguments and the result of a tool, and with the query and the documents of a retrieval."""
_DOCUMENTS: Final = ("retrieval.documents", "reranker.output_documents")
_MCP_NAMES: Final = ("MCP send tools/call ", "MCP request: tools/call ", "tools/call ")
_CANCELLED: Final = frozenset(
    {"CancelledError", "asyncio.CancelledError", "asyncio.exceptions.CancelledError", "KeyboardInterrupt"}
)


class Normalised(msgspec.Struct, frozen=True, gc=False):
    """What a foreign span means."""

    span_type: SpanType
    status: SpanStatus
    status_message: str | None
    attributes: dict[str, Any]
    events: list[ForeignEvent]


def normalise(span: ForeignSpan) -> Normalised:
    """Read the attributes and events of a span. Never raises: a value of an unexpected shape passes through unchanged."""
    found = _attempt(span, bool(span.events))
    if found is not None:
        return found
    status = SpanStatus.PENDING if span.end_ns is None else _STATUSES[span.status]
    return Normalised(
        span_type=SpanType.CUSTOM,
        status=status,
        status_message=span.status_message or None,
        attributes=dict(span.attributes),
        events=span.events,
    )


@guarded("otel.normalise")
def _attempt(span: ForeignSpan, events: bool) -> Normalised:
    shape = shape_of(span.attributes, events=events)
    if shape.dialect is not None and (attributes := shape.dialect(span.attributes)) is not None:
        span = msgspec.structs.replace(span, attributes=attributes)
        shape = shape_of(attributes, events=events)
    return normalise_as(span, shape)


def normalise_as(span: ForeignSpan, shape: Shape) -> Normalised:
    """As `normalise`, with the steps that `shape` names."""
    rest = dict(span.attributes)
    span_type = span_type_of(
        span.name, rest, shape.evidence, may_be_call=shape.may_be_call, has_more=shape.more_evidence
    )
    found: dict[str, Any] = {}
    _facts(span, shape, rest, found)
    if span_type is SpanType.TOOL:
        _tool(span, rest, found)
    elif span_type is SpanType.RETRIEVAL:
        _retrieval(rest, found)
    elif span_type is SpanType.AGENT:
        found.setdefault(semconv.AGENT_NAME, text(rest.get("traceloop.entity.name")))
    elif span_type is SpanType.LLM and shape.answers:
        _answers(span, shape, rest, found)
    events = _content(span_type, shape, rest, found, span.events) if shape.has_content else span.events
    if found or "llm.system" in rest:
        _provider(rest, found)
        _finish_reasons(rest, found)
    status = _status(span, rest, found)
    if found:
        if None in found.values():
            found = {key: value for key, value in found.items() if value is not None}
        rest.update(found)
    return Normalised(span_type, status, span.status_message or None, rest, events)


def _facts(span: ForeignSpan, shape: Shape, rest: dict[str, Any], found: dict[str, Any]) -> None:
    """What any span may have: names, counts, costs and parameters."""
    if shape.renamed:
        _rename(rest, found, shape)
    if shape.usage is not None:
        found.update(usage_of(span.attributes, shape.usage))
        for key in shape.consumed:
            rest.pop(key, None)
        if shape.usage.totals:
            _remove_totals(rest, found)
    if shape.parameters:
        _parameters(rest, found, shape.parameters)
    if shape.numbers:
        _numbers(rest, found, shape.numbers)
    if shape.first_chunk:
        _first_chunk(span, rest, found)


def _rename(rest: dict[str, Any], found: dict[str, Any], shape: Shape) -> None:
    """Take out the attributes that have another name. Of several names for one fact, the first that has a value counts."""
    for name, first, others, is_json in shape.renamed:
        value = rest.get(first)
        if value is not None:
            found[name] = parsed(value) if is_json else value
            del rest[first]
        for key in others:
            one = rest.get(key)
            if one is None:
                continue
            if value is None:
                value = one
                found[name] = parsed(one) if is_json else one
                del rest[key]
            elif one == value:
                del rest[key]


def _remove_totals(rest: dict[str, Any], found: Mapping[str, Any]) -> None:
    into, out = found.get(semconv.INPUT_TOKENS), found.get(semconv.OUTPUT_TOKENS)
    if into is not None and out is not None:
        for key in _TOTALS:
            if rest.get(key) == into + out:
                del rest[key]


def _parameters(rest: Mapping[str, Any], found: dict[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        for parameter, value in as_map(rest.get(key)).items():
            name = PARAMETERS.get(parameter)
            if (
                name is not None
                and value not in (None, "")
                and not isinstance(value, Mapping)
                and found.get(name) is None
            ):
                found[name] = value


def _numbers(rest: Mapping[str, Any], found: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        value = found.get(name) or rest.get(name)
        if value.__class__ is str:
            whole = as_int(value)
            number = as_float(value) if whole is None else whole
            found[name] = value if number is None else number


def _answers(span: ForeignSpan, shape: Shape, rest: Mapping[str, Any], found: dict[str, Any]) -> None:
    """What the raw answer holds and no attribute has."""
    is_whole = all(found.get(name) is not None or rest.get(name) is not None for name in _IN_ANSWERS)
    if is_whole and not has_parts(span.attributes, shape.answers, found):
        return
    facts = facts_of_answers(span.attributes, shape.answers)
    for whole, parts in INCLUDES.items():
        beside = sum(facts.get(name, 0) for name in parts if found.get(name) is None)
        if beside and found.get(whole) is not None and found[whole] + beside == facts.get(whole):
            found[whole] = facts[whole]
    for name, value in facts.items():
        if found.get(name) is None and rest.get(name) is None:
            found[name] = value


def _first_chunk(span: ForeignSpan, rest: dict[str, Any], found: dict[str, Any]) -> None:
    if found.get(semconv.TIME_TO_FIRST_CHUNK) is not None or rest.get(semconv.TIME_TO_FIRST_CHUNK) is not None:
        return
    for key in MILLISECONDS:
        if (milliseconds := as_float(rest.get(key))) is not None:
            found[semconv.TIME_TO_FIRST_CHUNK] = milliseconds / 1000
            del rest[key]
            return
    started = rest.get(STARTED)
    if isinstance(started, str) and span.start_ns:
        try:
            moment = datetime.fromisoformat(started.strip('"'))
        except ValueError:
            return
        if moment.tzinfo is not None and (seconds := moment.timestamp() - span.start_ns / 1e9) >= 0:
            found[semconv.TIME_TO_FIRST_CHUNK] = round(seconds, 6)
            del rest[STARTED]


def _tool(span: ForeignSpan, rest: dict[str, Any], found: dict[str, Any]) -> None:
    if found.get(semconv.TOOL_NAME) is None and not text(rest.get(semconv.TOOL_NAME)):
        mcp = next((span.name.removeprefix(prefix) for prefix in _MCP_NAMES if span.name.startswith(prefix)), None)
        entity = text(rest.get("traceloop.entity.name"))
        found[semconv.TOOL_NAME] = mcp or entity or (span.name or None)
    declared = span.attributes.get("tool.parameters")
    if declared is not None and "input.value" in rest and found.get(semconv.TOOL_CALL_ARGUMENTS) == parsed(declared):
        found[semconv.TOOL_CALL_ARGUMENTS] = (
            None  # OpenInference has the schema of the tool here, and the arguments there
        )
        rest["tool.parameters"] = declared
    for name, keys in ((semconv.TOOL_CALL_ARGUMENTS, _GIVEN), (semconv.TOOL_CALL_RESULT, _RETURNED)):
        for key in keys:
            if found.get(name) is None and rest.get(name) is None and rest.get(key) is not None:
                found[name] = parsed(rest.pop(key))
    if found.get(semconv.TOOL_CALL_RESULT) is None:
        for event in span.events:
            if event.name == "gen_ai.choice" and (result := event.attributes.get("message")) is not None:
                found[semconv.TOOL_CALL_RESULT] = parsed(result)
            elif event.name == "gen_ai.tool.message" and found.get(semconv.TOOL_CALL_ARGUMENTS) is None:
                found[semconv.TOOL_CALL_ARGUMENTS] = parsed(event.attributes.get("content"))


def _retrieval(rest: dict[str, Any], found: dict[str, Any]) -> None:
    if found.get(semconv.RETRIEVAL_QUERY) is None and rest.get(semconv.RETRIEVAL_QUERY) is None:
        _query(rest, found)
    for prefix in _DOCUMENTS:
        documents = nested(rest, prefix)
        if isinstance(documents, list) and documents:
            for key in [key for key in rest if is_below(key, prefix)]:
                del rest[key]
            found[semconv.RETRIEVAL_DOCUMENTS] = [_document(one) for one in documents]
            return
    documents = found.get(semconv.RETRIEVAL_DOCUMENTS) or rest.get(semconv.RETRIEVAL_DOCUMENTS)
    if documents is None:
        _returned_documents(rest, found)
    elif isinstance(documents, list):
        found[semconv.RETRIEVAL_DOCUMENTS] = [_document(one) for one in undotted(documents)]


def _query(rest: dict[str, Any], found: dict[str, Any]) -> None:
    for key in _GIVEN:
        asked = parsed(rest.get(key))
        query = asked.get("query") if isinstance(asked, Mapping) else asked
        if isinstance(query, str) and query:
            found[semconv.RETRIEVAL_QUERY] = query
            if query is asked:
                del rest[key]
            return


def _returned_documents(rest: dict[str, Any], found: dict[str, Any]) -> None:
    for key in _RETURNED:
        answer = parsed(rest.get(key))
        documents = answer.get("documents") if isinstance(answer, Mapping) else answer
        if isinstance(documents, list) and documents and all(isinstance(one, Mapping) for one in documents):
            found[semconv.RETRIEVAL_DOCUMENTS] = documents
            del rest[key]
            return


def _document(one: Any) -> Any:
    inner = one.get("document", one) if isinstance(one, Mapping) else one
    return {key: parsed(value) for key, value in inner.items()} if isinstance(inner, Mapping) else inner


def _content(
    span_type: SpanType, shape: Shape, rest: dict[str, Any], found: dict[str, Any], events: list[ForeignEvent]
) -> list[ForeignEvent]:
    """Messages, system instructions and tool definitions. Returns the events that were not consumed."""
    if span_type in _WITHOUT_MESSAGES:
        return events
    sources = _sources(span_type, shape, rest, events)
    consumed: set[str] = set()
    for name, source in sources:
        if source is None:
            continue
        found[name] = source.value
        consumed |= source.events
        for key in source.keys & rest.keys():
            del rest[key]
        for prefix in source.prefixes:
            for key in [key for key in rest if is_below(key, prefix)]:
                if key.endswith(".finish_reason") and semconv.FINISH_REASONS not in found:
                    found[semconv.FINISH_REASONS] = rest[key]
                del rest[key]
    if found.get(semconv.INPUT_MESSAGES) and found.get(semconv.OUTPUT_MESSAGES):
        rest.pop(content.ADK_REQUEST, None)
    return [event for event in events if event.name not in consumed] if consumed else events


def _sources(
    span_type: SpanType, shape: Shape, rest: Mapping[str, Any], events: Sequence[ForeignEvent]
) -> Sequence[tuple[str, sources.Found | None]]:
    inputs, outputs, tools = shape.inputs, shape.outputs, shape.tools
    if span_type is SpanType.LLM:
        inputs, outputs = inputs + shape.plain_inputs, outputs + shape.plain_outputs
        tools += shape.plain_tools
    if not (inputs or outputs or shape.instructions or tools):
        return ()
    return (
        (semconv.SYSTEM_INSTRUCTIONS, sources.first(shape.instructions, rest, events)),
        (semconv.TOOL_DEFINITIONS, sources.first(tools, rest, events)),
        (semconv.INPUT_MESSAGES, sources.first(inputs, rest, events)),
        (semconv.OUTPUT_MESSAGES, sources.first(outputs, rest, events)),
    )


def _provider(rest: dict[str, Any], found: dict[str, Any]) -> None:
    system = rest.get("llm.system")
    provider = found.get(semconv.PROVIDER_NAME)
    if provider is None and isinstance(system, str) and "openinference.span.kind" in rest:
        found[semconv.PROVIDER_NAME] = provider = rest.pop("llm.system")
    if isinstance(provider, str):
        found[semconv.PROVIDER_NAME] = provider_of(provider)
        if system is not None and rest.get("llm.system") == provider and "openinference.span.kind" in rest:
            del rest["llm.system"]


def _finish_reasons(rest: dict[str, Any], found: dict[str, Any]) -> None:
    value = found.pop(semconv.FINISH_REASONS, None)
    raw = finish_reasons_of(rest.pop(semconv.FINISH_REASONS, None) if value is None else value)
    if not raw:
        answers = found.get(semconv.OUTPUT_MESSAGES)
        raw = [one["finish_reason"] for one in answers if "finish_reason" in one] if isinstance(answers, list) else []
    if not raw:
        if value is not None:
            found[semconv.FINISH_REASONS] = value
        return
    reasons = [normalise_finish_reason(one) for one in raw]
    found[semconv.FINISH_REASONS] = reasons
    if reasons != raw:
        found[semconv.RAW_FINISH_REASONS] = raw


def _status(span: ForeignSpan, rest: dict[str, Any], found: dict[str, Any]) -> SpanStatus:
    """The status. An error gets `error.type`, `error.message` and `error.stacktrace` from the span's last exception event."""
    if span.end_ns is None:
        return SpanStatus.PENDING
    if span.status != "error" and rest.get("langfuse.observation.level") != "ERROR":
        return SpanStatus.SUCCESS
    exception: Mapping[str, Any] = next(
        (event.attributes for event in reversed(span.events) if event.name == "exception"), {}
    )
    for name, key in (
        (semconv.ERROR_TYPE, "exception.type"),
        (semconv.ERROR_MESSAGE, "exception.message"),
        (semconv.ERROR_STACKTRACE, "exception.stacktrace"),
    ):
        if rest.get(name) is None and found.get(name) is None:
            found[name] = rest.get(key) if rest.get(key) is not None else exception.get(key)
    if found.get(semconv.ERROR_MESSAGE) is None and rest.get(semconv.ERROR_MESSAGE) is None:
        found[semconv.ERROR_MESSAGE] = span.status_message or text(rest.get("langfuse.observation.status_message"))
    kind = rest.get(semconv.ERROR_TYPE) or found.get(semconv.ERROR_TYPE)
    if kind is None:
        code = rest.get("http.response.status_code", rest.get("http.status_code"))
        found[semconv.ERROR_TYPE] = str(code) if isinstance(code, int) and code >= 400 else "_OTHER"
    return SpanStatus.CANCELLED if kind in _CANCELLED else SpanStatus.ERROR
