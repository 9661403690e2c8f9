"""What a model was asked and what it answered, from the attributes and events of any tracer.

Each tracer has its own place for it: one JSON attribute, attributes that are flattened into dotted keys, or events. A source
that gives messages is consumed: its keys are returned, so that the same text is not stored twice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from prela_stream.otel.messages import Message, messages_of
from prela_stream.otel.parts import Part, call_part, parts_of, text_part
from prela_stream.otel.sources import (
    Found,
    Read,
    Source,
    attribute,
    flattened,
    in_event,
    listed,
    messages_or_text,
    structured,
)
from prela_stream.otel.spans import ForeignEvent
from prela_stream.otel.values import as_map, nested, parsed

DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"
_MESSAGE_EVENTS: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_OF_MESSAGE: Final = ("role", "content", "tool_calls", "parts", "function_call")
_CHOICE_EVENT: Final = "gen_ai.choice"
_VERCEL_ANSWER: Final = frozenset(
    f"ai.{word}.{key}" for word in ("response", "result") for key in ("text", "object", "toolCalls", "reasoning")
)
"""Version 3 of the Vercel AI SDK has them below `ai.result`."""
ADK_REQUEST: Final = "gcp.vertex.agent.llm_request"
_ADK_ANSWER: Final = "gcp.vertex.agent.llm_response"
_LOGGED_EVENTS: Final = ("events", "all_messages_events")
_INSTRUCTIONS: Final = ("gen_ai.system_instructions", "ai.prompt.system")
_DEFINITIONS: Final = ("gen_ai.tool.definitions", "ai.prompt.tools", "gen_ai.request.tools", "mlflow.chat.tools")
_PYDANTIC_PARAMETERS: Final = "model_request_parameters"
_LANGFUSE_INPUT: Final = "langfuse.observation.input"
_LANGFUSE_DEFINITIONS: Final = "langfuse.observation.tool_definitions"
_REQUESTS: Final = (
    *(_LANGFUSE_INPUT, "input.value", "llm.invocation_parameters", "langfuse.observation.model.parameters"),
    *(
        "request_data",
        "genkit:input",
        "mlflow.spanInputs",
        "lmnr.span.input",
        "traceloop.entity.input",
        "gen_ai.prompt",
    ),
)
"""Attributes that may hold a request with `tools`."""
_DEFINED_BELOW: Final = ("llm.tools", "llm.request.functions", "gen_ai.request.functions")


def _langfuse_input(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
    """Langfuse's handler of LangChain adds the tools to the messages, with the role `tool`."""
    value = parsed(attributes.get(_LANGFUSE_INPUT))
    if isinstance(value, list):
        value = [one for one in value if _offered(one) is None]
    messages = messages_or_text(value, "user") if value else []
    return Found(value=messages, keys=frozenset({_LANGFUSE_INPUT})) if messages else None


def _offered(message: Any) -> Mapping[str, Any] | None:
    """The definition of a tool that is written as a message; None for a message."""
    if not isinstance(message, Mapping) or message.get("role") != "tool":
        return None
    content = parsed(message.get("content"))
    if not isinstance(content, Mapping) or content.get("type") != "function":
        return None
    function = content.get("function")
    is_definition = isinstance(function, Mapping) and "arguments" not in function and "name" in function
    return content if is_definition else None


def _vercel_prompt(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
    prompt = as_map(attributes.get("ai.prompt"))
    messages = messages_of(prompt) or messages_of(prompt.get("prompt"))
    return Found(value=messages, keys=frozenset({"ai.prompt"})) if messages else None


def _vercel_answer(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
    def given(key: str) -> Any:
        return attributes.get(f"ai.response.{key}") or attributes.get(f"ai.result.{key}")

    parts: list[Part] = []
    if isinstance(reasoning := given("reasoning"), str) and reasoning:
        parts.append({"type": "reasoning", "content": reasoning})
    parts += [text_part(one) for key in ("text", "object") if isinstance(one := given(key), str) and one]
    calls = parsed(given("toolCalls"))
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, Mapping):
            arguments = call.get("input", call.get("args"))
            parts.append(call_part(call.get("toolName"), arguments, call.get("toolCallId")))
    return Found(value=[{"role": "assistant", "parts": parts}], keys=_VERCEL_ANSWER) if parts else None


def _adk_request(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
    messages = messages_of(as_map(attributes.get(ADK_REQUEST)).get("contents"))
    return Found(value=messages) if messages else None


def _adk_answer(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
    messages = messages_of(as_map(attributes.get(_ADK_ANSWER)), "assistant")
    return Found(value=messages, keys=frozenset({_ADK_ANSWER})) if messages else None


def _message_events(_: Mapping[str, Any], events: Sequence[ForeignEvent]) -> Found | None:
    found: list[Message] = []
    for event in events:
        role = _MESSAGE_EVENTS.get(event.name)
        if role is not None:
            found += _of_event(event, role)
    return Found(value=found, events=frozenset(_MESSAGE_EVENTS)) if found else None


def _choice_events(_: Mapping[str, Any], events: Sequence[ForeignEvent]) -> Found | None:
    found = [message for event in events if event.name == _CHOICE_EVENT for message in _of_event(event, "assistant")]
    return Found(value=found, events=frozenset({_CHOICE_EVENT})) if found else None


def _of_event(event: ForeignEvent, role: str) -> list[Message]:
    body = {key: parsed(value) for key, value in event.attributes.items()}
    if isinstance(whole := body.pop("gen_ai.event.content", None), Mapping):  # Azure's clients
        body.update(whole)
    inner = body.get("message")
    if isinstance(inner, Mapping) and any(key in inner for key in _OF_MESSAGE):
        body = {**body, **inner}
        del body["message"]
    elif inner is not None and "content" not in body:  # strands: the content itself
        body["content"] = body.pop("message")
    if not any(key in body for key in _OF_MESSAGE[1:]):
        return []
    return messages_of({"role": role, **body}, role)


def _logged_events(read: Read) -> Read:
    """Pydantic AI before version 2 of its data: the events as one JSON attribute."""

    def source(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
        for key in _LOGGED_EVENTS:
            logged = parsed(attributes.get(key))
            if isinstance(logged, list) and all(isinstance(one, Mapping) and "event.name" in one for one in logged):
                events = [ForeignEvent(name=str(one["event.name"]), time_ns=0, attributes=one) for one in logged]
                if (found := read({}, events)) is not None:
                    return Found(value=found.value)
        return None

    return source


INPUTS: Final[Sequence[Source]] = (
    structured("gen_ai.input.messages", "user"),
    in_event(DETAILS_EVENT, "gen_ai.input.messages", "user"),
    flattened("llm.input_messages", "user"),
    listed("llm.input_messages", "user"),
    flattened("gen_ai.prompt", "user"),
    attribute("gen_ai.prompt", "user"),
    attribute("gen_ai.content.prompt", "user"),
    in_event("gen_ai.content.prompt", "gen_ai.prompt", "user"),
    flattened("llm.prompts", "user"),
    attribute("llm.prompts", "user"),
    attribute("ai.prompt.messages", "user"),
    Source(_vercel_prompt, keys=frozenset({"ai.prompt"})),
    Source(_message_events, in_events=True),
    Source(_adk_request, keys=frozenset({ADK_REQUEST})),
    attribute("pydantic_ai.all_messages", "user"),
    Source(_logged_events(_message_events), keys=frozenset(_LOGGED_EVENTS)),
    attribute("gen_ai.request.messages", "user"),
    attribute("genai.input.messages", "user"),
    attribute("gen_ai.input", "user"),
    attribute("genai.input", "user"),
)
"""Places that hold the messages of a request and nothing else."""
OUTPUTS: Final[Sequence[Source]] = (
    structured("gen_ai.output.messages"),
    in_event(DETAILS_EVENT, "gen_ai.output.messages", "assistant"),
    flattened("llm.output_messages", "assistant"),
    listed("llm.output_messages", "assistant"),
    flattened("gen_ai.completion", "assistant"),
    attribute("gen_ai.completion", "assistant"),
    attribute("gen_ai.content.completion", "assistant"),
    attribute("llm.responses", "assistant"),
    in_event("gen_ai.content.completion", "gen_ai.completion", "assistant"),
    flattened("llm.completions", "assistant"),
    flattened("llm.choices", "assistant"),
    Source(_vercel_answer, keys=_VERCEL_ANSWER),
    Source(_choice_events, in_events=True),
    Source(_logged_events(_choice_events), keys=frozenset(_LOGGED_EVENTS)),
    Source(_adk_answer, keys=frozenset({_ADK_ANSWER})),
    structured("gen_ai.output"),
    structured("genai.output"),
)
PLAIN_INPUTS: Final[Sequence[Source]] = (
    Source(_langfuse_input, keys=frozenset({_LANGFUSE_INPUT})),
    *(
        structured(key, "user")
        for key in (
            *("traceloop.entity.input", "input.value", "request_data", "genkit:input", "mlflow.spanInputs"),
            *("lmnr.span.input", "input", "inputs"),
        )
    ),
)
"""Places that hold the input of any span. For a model call it is read as messages, a plain text too."""
PLAIN_OUTPUTS: Final[Sequence[Source]] = (
    *(
        structured(key)
        for key in (
            *("langfuse.observation.output", "traceloop.entity.output", "output.value", "response_data"),
            *("genkit:output", "mlflow.spanOutputs", "lmnr.span.output", "output", "outputs"),
        )
    ),
)


def system_instructions(attributes: Mapping[str, Any], events: Sequence[ForeignEvent] = ()) -> Found | None:
    """The system instructions outside of the messages, as parts."""
    for event in events:
        if event.name == DETAILS_EVENT and (parts := parts_of(event.attributes.get("gen_ai.system_instructions"))):
            return Found(value=parts)
    for key in _INSTRUCTIONS:
        if parts := parts_of(attributes.get(key)):
            return Found(value=parts, keys=frozenset({key}))
    config = as_map(as_map(attributes.get(ADK_REQUEST)).get("config"))
    if parts := parts_of(config.get("system_instruction")):
        return Found(value=parts)
    if parts := parts_of(as_map(attributes.get("ai.prompt")).get("system")):
        return Found(value=parts)
    return None


def tool_definitions(attributes: Mapping[str, Any], events: Sequence[ForeignEvent] = ()) -> Found | None:
    """The tools that a request offers to the model: a list of `{type, name, description, parameters}`."""
    for event in events:
        if event.name == DETAILS_EVENT and (
            definitions := definitions_of(parsed(event.attributes.get("gen_ai.tool.definitions")))
        ):
            return Found(value=definitions)
    for key in _DEFINITIONS:
        if definitions := definitions_of(parsed(attributes.get(key))):
            return Found(value=definitions, keys=frozenset({key}))
    for prefix in _DEFINED_BELOW:
        if definitions := definitions_of(nested(attributes, prefix)):
            return Found(value=definitions, prefixes=(prefix,))
    config = as_map(as_map(attributes.get(ADK_REQUEST)).get("config"))
    if definitions := definitions_of(config.get("tools")):
        return Found(value=definitions)
    if definitions := definitions_of(as_map(attributes.get(_PYDANTIC_PARAMETERS)).get("function_tools")):
        return Found(value=definitions)
    if isinstance(named := parsed(attributes.get(_LANGFUSE_DEFINITIONS)), Mapping) and named:
        tools = [{"name": name, **as_map(one)} for name, one in named.items()]
        return Found(value=definitions_of(tools), keys=frozenset({_LANGFUSE_DEFINITIONS}))
    return None


def _requested_tools(attributes: Mapping[str, Any], _: Sequence[ForeignEvent]) -> Found | None:
    """The tools in the raw request of a model call."""
    for key in _REQUESTS:
        request = parsed(attributes.get(key))
        if isinstance(request, Mapping):
            offered = parsed(request.get("tools"))
        else:
            offered = [one for each in request if (one := _offered(each))] if isinstance(request, list) else None
        if definitions := [one for one in definitions_of(offered) if isinstance(one.get("name"), str)]:
            return Found(value=definitions)
    return None


INSTRUCTIONS: Final[Sequence[Source]] = (
    Source(system_instructions, keys=frozenset({*_INSTRUCTIONS, ADK_REQUEST, "ai.prompt"}), in_events=True),
)
TOOL_DEFINITIONS: Final[Sequence[Source]] = (
    Source(
        tool_definitions,
        keys=frozenset({*_DEFINITIONS, ADK_REQUEST, _PYDANTIC_PARAMETERS, _LANGFUSE_DEFINITIONS}),
        in_events=True,
    ),
    *(Source(tool_definitions, prefix=prefix) for prefix in _DEFINED_BELOW),
)


PLAIN_TOOLS: Final[Sequence[Source]] = (Source(_requested_tools, keys=frozenset(_REQUESTS)),)
"""Places that hold tool definitions if the span is a model call."""


def definitions_of(tools: Any) -> list[dict[str, Any]]:
    """Tool definitions of any provider's shape, one `{type, name, description, parameters}` each."""
    found: list[dict[str, Any]] = []
    for tool in tools if isinstance(tools, list) else ():
        one = parsed(tool)
        if isinstance(one, Mapping):
            found += _definition(one)
    return found


def _definition(tool: Mapping[str, Any]) -> list[dict[str, Any]]:
    inner = tool.get("tool")
    if isinstance(inner, Mapping):  # OpenInference: tool.json_schema
        return _definition(inner)
    if "json_schema" in tool:
        schema = parsed(tool["json_schema"])
        return _definition(schema) if isinstance(schema, Mapping) else []
    declared = tool.get("function_declarations") or tool.get("functionDeclarations")
    if isinstance(declared, list):  # Gemini
        return [one for each in declared if isinstance(each, Mapping) for one in _definition(each)]
    function = tool.get("function") if isinstance(tool.get("function"), Mapping) else tool
    assert isinstance(function, Mapping)
    if not isinstance(function.get("name"), str):
        return [dict(tool)]
    schema = next(
        (function[k] for k in ("parameters", "input_schema", "inputSchema", "parameters_json_schema") if k in function),
        None,
    )
    definition = {
        "type": "function",
        "name": function["name"],
        "description": function.get("description"),
        "parameters": parsed(schema),
    }
    return [{key: value for key, value in definition.items() if value is not None}]
