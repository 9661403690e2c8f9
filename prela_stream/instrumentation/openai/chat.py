"""Maps the JSON of Chat Completions, and of the older Completions, to the attributes of OpenTelemetry's GenAI conventions. Pure.

A stream has usage only if the application asks for it (`stream_options={"include_usage": True}`). It is never asked for here,
because it adds a chunk to what the application reads.
"""

from collections.abc import Mapping
from typing import Any, Final

from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.instrumentation.openai.fields import (
    API_TYPE,
    answer_attributes,
    described_failure,
    dig,
    failure_of,
    request_attributes,
    tool_attributes,
)
from prela_stream.instrumentation.provider import Failure, StreamState, read_json
from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.otel.messages import messages_of
from prela_stream.privacy.media import without_media

_DONE: Final = b"[DONE]"


class ChatCompletion:
    """`POST /chat/completions`: as `Operation`."""

    name = "chat"
    span_type = SpanType.LLM
    price_flavor: str | None = "chat"

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {semconv.OPERATION_NAME: "chat", API_TYPE: "chat_completions", **request_attributes(body)}

    def request_content(self, body: object) -> dict[str, Any]:
        """As `Operation.request_content`."""
        if not isinstance(body, Mapping):
            return {}
        messages = messages_of(without_media(body.get("messages")))
        return {**({semconv.INPUT_MESSAGES: messages} if messages else {}), **tool_attributes(body)}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        """As `Operation.response_attributes`."""
        found = answer_attributes(answer)
        choices = answer.get("choices")
        choices = [one for one in choices if isinstance(one, Mapping)] if isinstance(choices, list) else []
        reasons = [one["finish_reason"] for one in choices if isinstance(one.get("finish_reason"), str)]
        if reasons:
            found[semconv.FINISH_REASONS] = reasons
        if content and (messages := [message for one in choices for message in _messages(one)]):
            found[semconv.OUTPUT_MESSAGES] = messages
        return found

    def response_failure(self, answer: Mapping[str, Any]) -> Failure | None:
        """As `Operation.response_failure`."""
        return failure_of(answer)

    def stream_state(self, *, content: bool) -> StreamState:
        """As `Operation.stream_state`."""
        return ChatStream(content=content)


class TextCompletion(ChatCompletion):
    """`POST /completions`: as `Operation`."""

    name = "text_completion"

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {semconv.OPERATION_NAME: self.name, **request_attributes(body)}

    def request_content(self, body: object) -> dict[str, Any]:
        """As `Operation.request_content`."""
        prompt = body.get("prompt") if isinstance(body, Mapping) else None
        messages = messages_of(prompt) if isinstance(prompt, str | list) else []
        return {semconv.INPUT_MESSAGES: messages} if messages else {}


def _messages(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return messages_of({"text": choice.get("text"), "finish_reason": choice.get("finish_reason")}, "assistant")
    shown = message.get("content") or message.get("refusal") or dig(message, "audio", "transcript")
    return messages_of({**choice, "message": {"role": "assistant", **message, "content": shown}}, "assistant")


class ChatStream:
    """As `StreamState`.

    Args:
        content: Whether to keep what was generated; without it only usage, model and finish reasons are kept.
    """

    last_event: str | None = "[DONE]"

    def __init__(self, *, content: bool) -> None:
        self.is_complete = False
        self.has_output = False
        self.failure: Failure | None = None
        self._content = content
        self._answer: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    def add(self, event: StreamEvent) -> bool:
        """As `StreamState.add`."""
        data = event.data.strip()
        if data.startswith(_DONE):
            self.is_complete = True
            return bool(self._answer)
        found = read_json(data) if data else None
        if not isinstance(found, Mapping):
            return not data
        if found.get("error"):
            error = found["error"]
            self.failure = described_failure(error if isinstance(error, Mapping) else {"message": str(error)})
            return True
        choices = found.get("choices")
        if not isinstance(choices, list):
            return False
        self._answer.update({key: value for key, value in found.items() if key != "choices" and value is not None})
        for choice in choices:
            self._add_choice(choice)
        if self._choices and all(one.reason is not None for one in self._choices.values()):
            self.is_complete = True  # some servers omit the last event
        return True

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        index, delta = choice["index"], choice.get("delta")
        one = self._choices.setdefault(index, _Choice())
        if isinstance(reason := choice.get("finish_reason"), str):
            one.reason = reason
        if isinstance(text := choice.get("text"), str):  # of the older Completions
            delta = {"content": text}
        if isinstance(delta, Mapping):
            has_output = any(value for key, value in delta.items() if key != "role")
            self.has_output = self.has_output or has_output
            if self._content:
                one.add(delta)

    def answer(self) -> dict[str, Any]:
        """As `StreamState.answer`."""
        if not self._answer:
            return {}
        return {**self._answer, "choices": [self._choices[index].message() for index in sorted(self._choices)]}


class _Choice:
    """One of the answers that are generated side by side."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        for key, value in delta.items():
            if isinstance(value, str) and key != "role":
                self._texts.setdefault(key, []).append(value)
        if isinstance(transcript := dig(delta, "audio", "transcript"), str):
            self._texts.setdefault("content", []).append(transcript)
        for call in delta.get("tool_calls") or ():
            self._add_call(call["index"], call)
        if isinstance(legacy := delta.get("function_call"), Mapping):
            self._add_call(0, {"function": legacy})

    def _add_call(self, index: int, call: Mapping[str, Any]) -> None:
        found = self._calls.setdefault(index, {})
        if isinstance(call.get("id"), str):
            found["id"] = call["id"]
        for kind, key in (("function", "arguments"), ("custom", "input")):
            inner = call.get(kind)
            if isinstance(inner, Mapping):
                if isinstance(inner.get("name"), str):
                    found["name"] = inner["name"]
                if isinstance(inner.get(key), str):
                    self._arguments.setdefault(index, []).append(inner[key])

    def message(self) -> dict[str, Any]:
        calls = [
            {**found, "arguments": "".join(self._arguments.get(index, ()))} for index, found in self._calls.items()
        ]
        message: dict[str, Any] = {key: "".join(texts) for key, texts in self._texts.items()}
        if calls:
            message["tool_calls"] = calls
        return {"finish_reason": self.reason, **({"message": message} if message else {})}
