"""Spans of agents, written down: for what shows a trace to people."""

from collections.abc import Sequence
from typing import Any

from prela_stream.model.span import Resource, SpanData, SpanEvent, SpanStatus, SpanType

MS = 1_000_000
START = 1_790_000_000_000 * MS
TRACE = "4a1b2c3d" * 4


def part(text: str) -> dict[str, str]:
    """A text part."""
    return {"type": "text", "content": text}


def message(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """A message as it is in an attribute."""
    return {"role": role, "parts": list(parts)}


def made(
    number: int, parent: int | None, name: str, span_type: SpanType = SpanType.CUSTOM, *, at: int, ms: int | None,
    service: str = "travel", **changes: Any,
) -> SpanData:  # fmt: skip
    """A span that starts `at` ms after the trace and takes `ms`."""
    return SpanData(
        trace_id=TRACE,
        span_id=f"{number:016x}",
        parent_span_id=None if parent is None else f"{parent:016x}",
        name=name,
        span_type=span_type,
        start_ns=START + at * MS,
        duration_ns=None if ms is None else ms * MS,
        resource=Resource(service_name=service),
        **{"status": SpanStatus.SUCCESS, **changes},
    )


SYSTEM = [part("You plan trips.")]
QUESTION = message("user", part("How far is Lisbon?"))
CALL = message(
    "assistant",
    part("I will check."),
    {"type": "tool_call", "id": "c1", "name": "distance", "arguments": {"to": "Lisbon"}},
)
RESULT = message("tool", {"type": "tool_call_response", "id": "c1", "response": "2,300 km"})
ANSWER = message("assistant", part("It is 2,300 km away."))


def model_call(number: int, parent: int, at: int, sent: Sequence[Any], answer: Any, **own: Any) -> SpanData:
    """A call of a model."""
    attributes = {
        "gen_ai.request.model": "sonnet",
        "gen_ai.system_instructions": SYSTEM,
        "gen_ai.input.messages": list(sent),
        "gen_ai.output.messages": [answer],
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.response.finish_reasons": ["end_turn"],
        **own,
    }
    return made(number, parent, "chat sonnet", SpanType.LLM, at=at, ms=40, attributes=attributes)


def conversation() -> list[SpanData]:
    """An agent that asks a model, calls a tool, and asks the model again with the whole history."""
    tool = {
        "gen_ai.tool.name": "distance",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.call.arguments": {"to": "Lisbon"},
        "gen_ai.tool.call.result": "2,300 km",
    }
    return [
        made(1, None, "plan trip", SpanType.AGENT, at=0, ms=100, attributes={"user.id": "u-17"}),
        model_call(2, 1, 1, [QUESTION], CALL, **{"gen_ai.response.finish_reasons": ["tool_use"]}),
        made(3, 1, "distance", SpanType.TOOL, at=42, ms=10, attributes=tool),
        model_call(4, 1, 55, [QUESTION, CALL, RESULT], ANSWER, **{"http.request.resend_count": 2}),
    ]


def with_failures() -> list[SpanData]:
    """Two services, a failed call after retries, a cancelled span, an open one, and a span whose parent is missing."""
    stack = {
        "exception.type": "APIError",
        "exception.message": "overloaded",
        "exception.stacktrace": "Traceback\n  at call",
    }
    failed = made(
        2, 1, "chat opus", SpanType.LLM, at=5, ms=900, status=SpanStatus.ERROR, status_message="overloaded",
        attributes={
            "error.type": "overloaded_error", "http.response.status_code": 529, "http.request.resend_count": 2,
            "gen_ai.request.model": "opus",
        },
        events=[SpanEvent("retry", START + 9 * MS, {"http.response.status_code": 529}),
                SpanEvent("exception", START + 900 * MS, stack)],
    )  # fmt: skip
    return [
        made(1, None, "plan trip", SpanType.AGENT, at=0, ms=1_000),
        failed,
        made(3, 1, "search", SpanType.TOOL, at=910, ms=20, service="index", status=SpanStatus.CANCELLED),
        made(4, 1, "book", SpanType.TOOL, at=930, ms=None, status=SpanStatus.PENDING),
        made(6, 5, "lost child", at=940, ms=5),
    ]


def loop(rounds: int) -> list[SpanData]:
    """An agent that repeats a model call and a tool."""
    spans = [made(1, None, "plan trip", SpanType.AGENT, at=0, ms=rounds * 20)]
    for round_ in range(rounds):
        spans.append(made(2 + 2 * round_, 1, "chat sonnet", SpanType.LLM, at=round_ * 20 + 1, ms=10))
        spans.append(made(3 + 2 * round_, 1, "search", SpanType.TOOL, at=round_ * 20 + 12, ms=5))
    return spans


def deep(depth: int) -> list[SpanData]:
    """A chain of spans."""
    return [
        made(number, None if number == 1 else number - 1, f"level {number}", at=number, ms=2 * depth - 2 * number)
        for number in range(1, depth + 1)
    ]
