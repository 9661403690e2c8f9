"""Messages in the shape of OpenTelemetry's GenAI conventions, from the shape of any provider or framework.

A message is `{"role": …, "parts": [...]}`, for an output with `finish_reason`. What is no message gives nothing: the caller
then keeps the attribute as it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prela_stream.otel.finish_reasons import normalise_finish_reason
from prela_stream.otel.parts import Part, call_part, part_of, parts_of, response_part, text_part
from prela_stream.otel.values import json_string, parsed, printed

Message = dict[str, Any]

_ROLES: Final = {
    "human": "user",
    "humanmessage": "user",
    "humanmessagechunk": "user",
    "user": "user",
    "ai": "assistant",
    "aimessage": "assistant",
    "aimessagechunk": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "systemmessage": "system",
    "developer": "system",
    "tool": "tool",
    "toolmessage": "tool",
    "function": "tool",
    "functionmessage": "tool",
    "tool-response": "tool",
}
_ITEMS: Final = {
    "function_call": "assistant",
    "reasoning": "assistant",
    "function_call_output": "tool",
    "tool_use": "assistant",
    "tool_result": "tool",
}
"""Items of OpenAI's Responses API that are parts without a message around them, with the role that they have."""
_PART_ROLES: Final = {"user-prompt": "user", "retry-prompt": "user", "system-prompt": "system", "tool-return": "tool"}
_CONTENTS: Final = ("content", "contents", "data")
_LISTS: Final = (
    *("messages", "contents", "input", "output", "choices", "candidates", "generations", "replies"),
    *("prompt", "prompts", "completion", "combined_chunk_content"),
)
_INSIDE: Final = ("kwargs", "input", "output", "response")
"""Keys of maps that hold a request or an answer."""
_INSTRUCTIONS: Final = ("system", "instructions", "systemInstruction", "system_instruction")


def messages_of(value: Any, role: str = "user") -> list[Message]:
    """The messages of a value: a list of them, one, a request or response that holds them, or a plain text.

    Args:
        value: Decoded, or JSON in a string.
        role: Of a text without one.
    """
    found = parsed(value)
    if isinstance(found, str):
        found = printed(found) if found[:1] in "[{" else parsed(json_string(found))
    if isinstance(found, str):
        return [{"role": role, "parts": [text_part(found)]}] if found else []
    if isinstance(found, Mapping):
        return list(_of_map(found, role))
    if isinstance(found, list):
        if found and all(_is_pair(one) for one in found):  # LangChain: a role and a text
            return [{"role": _ROLES[role.lower()], "parts": parts_of(content)} for role, content in found]
        if found and all(isinstance(one, list) for one in found):  # LangChain: one list for each prompt of a batch
            return [message for batch in found for message in messages_of(batch, role)]
        if found and all(isinstance(one, str) for one in found):
            return [message for one in found if one for message in _of_text(one, role)]
        if found and all(isinstance(one, Mapping) and not (_is_message(one) or _is_exchange(one)) for one in found):
            parts = [part_of(one) for one in found]
            return [{"role": role, "parts": parts}] if any(part.get("type", "") != "unknown" for part in parts) else []
        return [message for one in found if isinstance(one, Mapping | str) for message in messages_of(one, role)]
    return []


def _is_pair(one: Any) -> bool:
    return isinstance(one, list | tuple) and len(one) == 2 and isinstance(one[0], str) and one[0].lower() in _ROLES


def _of_text(value: str, role: str) -> list[Message]:
    decoded = parsed(value)
    if isinstance(decoded, Mapping) and _is_message(decoded):
        return messages_of(decoded, role)
    return [{"role": role, "parts": [text_part(value)]}]


def _of_map(value: Mapping[str, Any], role: str) -> Iterator[Message]:
    if _is_exchange(value):
        for part in value["parts"]:
            kind = part.get("part_kind") if isinstance(part, Mapping) else None
            yield {"role": _PART_ROLES.get(str(kind), "assistant"), "parts": [part_of(part)]}
        return
    if _is_message(value):
        yield _message(value, role)
        return
    if role != "assistant" and (system := _system(value)):
        yield {"role": "system", "parts": system}
    for key in _LISTS:
        if isinstance(found := parsed(value.get(key)), list | str) and found:
            yield from messages_of(found, role)
            return
    yield from _of_answer(value, role)


def _is_exchange(value: Mapping[str, Any]) -> bool:
    """Whether it is a request or a response of Pydantic AI, whose parts have the roles."""
    return value.get("kind") in ("request", "response") and isinstance(value.get("parts"), list)


def _of_answer(value: Mapping[str, Any], role: str) -> Iterator[Message]:
    if isinstance(inner := value.get("output"), Mapping) and "message" in inner:  # Bedrock's converse
        yield from messages_of(inner, "assistant")
    elif isinstance(value.get("content"), str | list) or isinstance(value.get("parts"), list):
        yield _message(value, role)
    elif isinstance(value.get("text"), str):
        yield _with_reason({"role": role, "parts": [text_part(value["text"])]}, value)
    else:
        for key in _INSIDE:
            if isinstance(inner := value.get(key), Mapping) and (messages := messages_of(inner, role)):
                yield from messages
                return


def _system(value: Mapping[str, Any]) -> list[Part]:
    """The instructions beside the messages of a request."""
    config = value.get("config")
    for source in (value, config if isinstance(config, Mapping) else {}):
        for key in _INSTRUCTIONS:
            if isinstance(found := source.get(key), str | list | Mapping) and found:
                inner = found.get("parts") if isinstance(found, Mapping) else None
                return parts_of(inner or found)
    return []


def _is_message(value: Mapping[str, Any]) -> bool:
    kind = value.get("type")
    if len(value) == 1 and isinstance(next(iter(value.values())), str) and next(iter(value)) in _ROLES:
        return True  # OpenLLMetry, for a completion without a chat
    return (
        isinstance(value.get("role"), str)
        or isinstance(value.get("message"), Mapping)
        or value.get("lc") == 1
        or (
            isinstance(kind, str)
            and (kind in _ITEMS or (kind.lower() in _ROLES and any(key in value for key in _CONTENTS)))
        )
        or (isinstance(value.get("content"), Mapping) and "parts" in value["content"])
    )


def _message(value: Mapping[str, Any], role: str) -> Message:
    """One message of any shape."""
    if isinstance(inner := value.get("message"), Mapping):  # a choice of OpenAI, a message of OpenInference
        return _with_reason(_message(inner, role), value)
    if value.get("lc") == 1 and isinstance(value.get("kwargs"), Mapping):  # LangChain, serialized
        name = value["id"][-1] if isinstance(value.get("id"), list) and value["id"] else ""
        return _message({"type": str(name).lower(), **value["kwargs"]}, _ROLES.get(str(name).lower(), role))
    if isinstance(content := value.get("content"), Mapping) and "parts" in content:  # a candidate of Gemini
        return _with_reason(_message(content, _ROLES.get(str(value.get("role")).lower(), "assistant")), value)
    if len(value) == 1 and (only := next(iter(value))) in _ROLES:
        return {"role": _ROLES[only], "parts": parts_of(value[only])}
    kind = str(value.get("type", "")).lower()
    if isinstance(data := value.get("data"), Mapping) and kind in _ROLES:  # LangChain's messages_to_dict
        return _message({"type": kind, **data}, role)
    if kind in _ITEMS and "role" not in value:
        return {"role": _ITEMS[kind], "parts": [part_of(value)]}
    named = value.get("role") or kind
    who = _ROLES.get(str(named).lower(), str(named) if value.get("role") else role)
    message: Message = {"role": who, "parts": _parts(value, who)}
    if isinstance(name := value.get("name"), str) and name and who != "tool":
        message["name"] = name
    return _with_reason(message, value)


def _parts(value: Mapping[str, Any], role: str) -> list[Part]:
    if isinstance(value.get("parts"), list):
        return [part_of(part) if isinstance(part, Mapping) else text_part(str(part)) for part in value["parts"]]
    call_id = value.get("tool_call_id") or value.get("toolCallId")
    content = _content(value)
    if role == "tool" and not _holds_results(content):
        return [response_part(content, call_id or value.get("id"), value.get("name"))]
    parts = parts_of(content)
    if isinstance(reasoning := value.get("reasoning_content") or value.get("reasoning"), str) and reasoning:
        parts.insert(0, {"type": "reasoning", "content": reasoning})
    there = [(part.get("id"), part.get("name")) for part in parts if part.get("type") == "tool_call"]
    return [*parts, *(call for call in _calls(value) if (call.get("id"), call["name"]) not in there)]


def _content(value: Mapping[str, Any]) -> Any:
    listed = next((value[key] for key in ("contents", "blocks") if isinstance(value.get(key), list)), None)
    if listed is not None:
        return listed
    return next(
        (value[key] for key in ("content", "text", "message", "refusal") if value.get(key) not in (None, "")), None
    )


def _holds_results(content: Any) -> bool:
    found = parsed(content)
    return isinstance(found, list) and any(
        isinstance(one, Mapping) and (one.get("type") in ("tool_result", "tool-result") or "toolResult" in one)
        for one in found
    )


def _calls(value: Mapping[str, Any]) -> list[Part]:
    """The tool calls beside the content: OpenAI, LangChain, OpenInference."""
    extra = value.get("additional_kwargs")
    calls = parsed(value.get("tool_calls") or value.get("toolCalls")) or (
        extra.get("tool_calls") if isinstance(extra, Mapping) else None
    )
    found = []
    for call in calls if isinstance(calls, list) else ():
        inner = call.get("tool_call", call) if isinstance(call, Mapping) else {}
        if not isinstance(inner, Mapping):
            continue
        function = inner.get("function") if isinstance(inner.get("function"), Mapping) else inner
        assert isinstance(function, Mapping)
        arguments = next((function[key] for key in ("arguments", "args", "input") if key in function), None)
        found.append(call_part(function.get("name"), arguments, inner.get("id") or inner.get("call_id")))
    if isinstance(one := value.get("function_call"), Mapping) and not found:  # OpenAI before tools
        found.append(call_part(one.get("name"), one.get("arguments"), None))
    if isinstance(name := value.get("function_call_name"), str) and not found:  # OpenInference
        found.append(call_part(name, value.get("function_call_arguments_json"), None))
    return found


def _with_reason(message: Message, value: Mapping[str, Any]) -> Message:
    raw = next(
        (value[key] for key in ("finish_reason", "finishReason", "stop_reason") if isinstance(value.get(key), str)),
        None,
    )
    metadata = value.get("response_metadata")
    if raw is None and isinstance(metadata, Mapping) and isinstance(metadata.get("finish_reason"), str):
        raw = metadata["finish_reason"]
    return message if not raw else {**message, "finish_reason": normalise_finish_reason(raw)}
