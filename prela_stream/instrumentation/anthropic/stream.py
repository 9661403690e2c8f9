"""Adds the events of a streamed answer of the Messages API up to the message that they make. Pure."""

import operator
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.instrumentation.provider import Failure, read_json

_FALLBACK_KIND: Final = "api_error"
_TEXT_FIELDS: Final = ("text", "thinking", "partial_json")
_OTHER_DELTAS: Final = frozenset({"signature_delta", "citations_delta", "compaction_delta"})
"""Deltas without text of the answer."""


class MessageStream:
    """As `StreamState`.

    Args:
        content: Whether to keep the blocks; without it only usage, model and stop reason are kept.
    """

    last_event: str | None = "message_stop"

    def __init__(self, *, content: bool) -> None:
        self.is_complete = False
        self.has_output = False
        self.failure: Failure | None = None
        self._content = content
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}

    def add(self, event: StreamEvent) -> bool:
        """As `StreamState.add`. The client ignores events without a name and pings, so their data may be anything."""
        found = read_json(event.data)
        found = found if isinstance(found, dict) else None
        if event.name == "error":
            self.failure = _named_failure(found, event.data)
            return True
        if event.name == "ping" or not event.data.strip():
            return True
        if found is None:
            return event.name is None
        self.failure = self.failure or failure_of(found)
        return self._add(found)

    def _add(self, event: Mapping[str, Any]) -> bool:
        match event.get("type"):
            case "message_start":
                message = dict(event["message"])
                # The count at the start is a placeholder: only message_delta has the number of generated tokens.
                self._usage = {**(message.get("usage") or {}), "output_tokens": None}
                self._message = message
            case "content_block_start":
                block = dict(event["content_block"])
                if self._content:
                    self._blocks[operator.index(event["index"])] = block
            case "content_block_delta":
                self.has_output = True
                return self._add_delta(operator.index(event["index"]), event["delta"])
            case "message_delta":
                usage = event.get("usage") or {}
                self._message.update(event["delta"])
                self._usage.update({key: value for key, value in usage.items() if value is not None})
            case "message_stop":
                self.is_complete = True
                return bool(self._message.get("id"))  # without it, message_start was missing or had no message
            case "content_block_stop" | "ping" | "error":
                pass
            case _:
                return False
        return True

    def _add_delta(self, index: int, delta: Mapping[str, Any]) -> bool:
        fields = [key for key in _TEXT_FIELDS if isinstance(delta.get(key), str)]
        if self._content:
            for key in fields:
                self._texts.setdefault((index, key), []).append(delta[key])
        return bool(fields) or delta.get("type") in _OTHER_DELTAS

    def answer(self) -> dict[str, Any]:
        """As `StreamState.answer`. A tool call that is not complete keeps its arguments as text."""
        if not self._message:
            return {}
        blocks = {index: dict(block) for index, block in self._blocks.items()}
        for (index, key), texts in self._texts.items():
            block = blocks.setdefault(index, {})
            if key == "partial_json":
                block["input"] = _json_or_text("".join(texts)) or block.get("input")
            else:
                begun = block.get(key)
                block[key] = (begun if isinstance(begun, str) else "") + "".join(texts)
        return {**self._message, "usage": self._usage, "content": [blocks[index] for index in sorted(blocks)]}


def failure_of(answer: Mapping[str, Any]) -> Failure | None:
    """The error of an error envelope; None for any other document. Gateways shorten the envelope in several ways."""
    if answer.get("type") != "error":
        return None
    error = answer.get("error")
    if isinstance(error, Mapping):
        kind, message = error.get("type"), error.get("message")
    else:
        kind, message = None, error or answer.get("message")
    kind = kind if isinstance(kind, str) and kind else _FALLBACK_KIND
    return Failure(kind, message if isinstance(message, str) and message else kind)


def _named_failure(found: dict[str, Any] | None, data: bytes) -> Failure | None:
    """The failure of an event that is named `error`, with an envelope, a bare error or plain text as its data."""
    if found is None:
        return failure_of({"type": "error", "error": data.decode(errors="replace").strip()})
    return failure_of({**found, "type": "error"} if "error" in found else {"type": "error", "error": found})


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
