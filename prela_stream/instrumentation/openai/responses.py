"""Maps the JSON of the Responses API to the attributes of OpenTelemetry's GenAI conventions. Pure.

The API has no finish reason. It is derived: why an answer is incomplete, `tool_call` if it asks for a call of the application's
tools, else `stop`. Calls of tools that the server runs are parts of the answer.
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
from prela_stream.otel.finish_reasons import normalise_finish_reason
from prela_stream.otel.messages import messages_of
from prela_stream.otel.parts import Part, call_part, part_of, response_part, text_part
from prela_stream.privacy.media import without_media

COUNTED_TOKENS: Final = "openai.response.count_tokens.input_tokens"
"""The number of tokens that a request would have. Not a usage, because nothing was generated or billed."""
_CALLS_OF_TOOLS: Final = frozenset({"function_call", "custom_tool_call", "computer_call", "local_shell_call"})
"""Items that the application answers."""
_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_NAMED: Final = ("id", "call_id", "type", "status", "name", "arguments", "output", "server_label")


class CreateResponse:
    """`POST /responses`: as `Operation`."""

    name = "chat"
    span_type = SpanType.LLM
    price_flavor: str | None = "responses"

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {semconv.OPERATION_NAME: "chat", API_TYPE: "responses", **request_attributes(body)}

    def request_content(self, body: object) -> dict[str, Any]:
        """As `Operation.request_content`."""
        if not isinstance(body, Mapping):
            return {}
        found = tool_attributes(body)
        if isinstance(instructions := body.get("instructions"), str) and instructions:
            found[semconv.SYSTEM_INSTRUCTIONS] = [text_part(instructions)]
        asked = without_media(body.get("input"))
        messages = messages_of(asked) if isinstance(asked, str) else _input_messages(asked)
        if messages:
            found[semconv.INPUT_MESSAGES] = messages
        return found

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        """As `Operation.response_attributes`."""
        found = answer_attributes(answer)
        items = [one for one in _list(answer.get("output")) if isinstance(one, Mapping)]
        status = answer.get("status")
        if isinstance(status, str):
            found[semconv.RESPONSE_STATUS] = status
            found.update(_reasons(status, dig(answer, "incomplete_details", "reason"), items))
        if isinstance(conversation := dig(answer, "conversation", "id"), str):
            found[semconv.CONVERSATION_ID] = conversation
        if content and (parts := [part for item in without_media(items) for part in _parts(item)]):
            message = {"role": "assistant", "parts": parts}
            reasons = found.get(semconv.FINISH_REASONS)
            found[semconv.OUTPUT_MESSAGES] = [{**message, "finish_reason": reasons[0]} if reasons else message]
        return found

    def response_failure(self, answer: Mapping[str, Any]) -> Failure | None:
        """As `Operation.response_failure`."""
        if (failure := failure_of(answer)) is not None:
            return failure
        return (
            Failure("failed", "the API reports that the response failed") if answer.get("status") == "failed" else None
        )

    def stream_state(self, *, content: bool) -> StreamState:
        """As `Operation.stream_state`."""
        return ResponseStream(content=content)


class CompactResponse(CreateResponse):
    """`POST /responses/compact`: as `Operation`. The model writes a shorter form of a conversation."""

    name = "compact"

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {**super().request_attributes(body), semconv.OPERATION_NAME: self.name}


class CountTokens(CreateResponse):
    """`POST /responses/input_tokens`: as `Operation`. It generates nothing, and its prompt belongs to no generation."""

    name = "count_tokens"
    span_type = SpanType.CUSTOM
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {API_TYPE: "responses", **request_attributes(body)}

    def request_content(self, body: object) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.request_content`."""
        return {}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.response_attributes`."""
        counted = answer.get("input_tokens")
        return {COUNTED_TOKENS: counted} if isinstance(counted, int) else {}


class CreateDecision(CreateResponse):
    """`POST /decisions`: as `Operation`. The model answers questions with probabilities instead of a text."""

    name = "decide"
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {semconv.OPERATION_NAME: self.name, API_TYPE: "decisions", **request_attributes(body)}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        """As `Operation.response_attributes`."""
        found = super().response_attributes(answer, content=False)
        if content and (answers := _list(answer.get("answers"))):
            parts = [{"type": "json", "content": one} for one in answers]
            found[semconv.OUTPUT_MESSAGES] = [{"role": "assistant", "parts": parts}]
        return found


def _reasons(status: str, incomplete: object, items: list[Mapping[str, Any]]) -> dict[str, Any]:
    if status == "completed":
        calls = any(item.get("type") in _CALLS_OF_TOOLS for item in items)
        return {semconv.FINISH_REASONS: ["tool_call" if calls else "stop"], semconv.RAW_FINISH_REASONS: [status]}
    if status == "incomplete":
        raw = incomplete if isinstance(incomplete, str) else status
        return {semconv.FINISH_REASONS: [normalise_finish_reason(raw)], semconv.RAW_FINISH_REASONS: [raw]}
    return {semconv.FINISH_REASONS: ["error"], semconv.RAW_FINISH_REASONS: [status]} if status == "cancelled" else {}


def _input_messages(items: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in _list(items):
        if not isinstance(item, Mapping):
            continue
        if item.get("type", "message") == "message":
            found += messages_of(item)
        else:
            role = "tool" if str(item["type"]).endswith("_output") else "assistant"
            found.append({"role": role, "parts": _parts(item)})
    return found


def _parts(item: Mapping[str, Any]) -> list[Part]:
    """The parts of one item of a conversation."""
    kind = item.get("type")
    if kind == "message":
        return [part for message in messages_of(item, "assistant") for part in message["parts"]]
    if kind == "custom_tool_call":
        return [call_part(item.get("name"), item.get("input"), item.get("call_id"))]
    if kind in ("function_call", "reasoning"):
        return [part_of(item)]
    if isinstance(kind, str) and kind.endswith("_output"):
        return [response_part(item.get("output"), item.get("call_id"))]
    if isinstance(kind, str) and kind.endswith("_call"):  # of a tool that the server runs
        arguments = item.get("arguments", {key: value for key, value in item.items() if key not in _NAMED})
        part = call_part(
            item.get("name") or kind.removesuffix("_call"), arguments, item.get("call_id") or item.get("id")
        )
        part["type"] = "tool_call" if kind in _CALLS_OF_TOOLS else "server_tool_call"
        if item.get("output") is None:
            return [part]
        answer = response_part(item["output"], item.get("call_id") or item.get("id"))
        return [part, {**answer, "type": "server_tool_call_response"}]
    return [{**item, "type": f"openai_{kind}"}]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


class ResponseStream:
    """As `StreamState`. The last event holds the whole answer, so parts are only collected for a stream that is broken off.

    Args:
        content: Whether to keep what was generated.
    """

    last_event: str | None = "response.completed"

    def __init__(self, *, content: bool) -> None:
        self.is_complete = False
        self.has_output = False
        self.failure: Failure | None = None
        self._content = content
        self._answer: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._texts: dict[int, list[str]] = {}

    def add(self, event: StreamEvent) -> bool:
        """As `StreamState.add`."""
        data = event.data.strip()
        if not data or data.startswith(b"[DONE]"):
            return True
        found = read_json(data)
        if not isinstance(found, Mapping):
            return False
        kind = found.get("type")
        if kind == "error" or found.get("error"):
            error = found.get("error")
            self.failure = described_failure(error if isinstance(error, Mapping) else found)
            return True
        if not isinstance(kind, str):
            return False
        return self._add(kind, found)

    def _add(self, kind: str, event: Mapping[str, Any]) -> bool:
        if isinstance(response := event.get("response"), Mapping):
            self._answer = dict(response)
            self.is_complete = self.is_complete or kind in _ENDS
        elif kind.startswith("response.output_item."):
            self.has_output = True
            if self._content:
                self._items[event["output_index"]] = dict(event["item"])
        elif kind.endswith(".delta"):
            self.has_output = True
            if self._content and isinstance(text := event.get("delta"), str) and "audio" not in kind:
                self._texts.setdefault(event["output_index"], []).append(text)
        return kind.startswith(("response.", "keepalive", "ping"))

    def answer(self) -> dict[str, Any]:
        """As `StreamState.answer`."""
        if self.is_complete or not self._answer:
            return self._answer
        parts = [self._item(index) for index in sorted({*self._items, *self._texts})]
        return {**self._answer, "output": parts}

    def _item(self, index: int) -> dict[str, Any]:
        """An item as far as it was received."""
        item = self._items.get(index, {"type": "message"})
        text = "".join(self._texts.get(index, ()))
        if not text or item.get("status") == "completed":
            return item
        if item.get("type") == "message":
            return {**item, "content": [{"type": "output_text", "text": text}]}
        return {**item, "arguments": text}
