"""Traces that are hard to show: many spans, hostile or right-to-left text, a megabyte, no root, five roots, lost, two days."""

import time
from collections.abc import Iterable
from itertools import count
from typing import Any, Final

import msgspec

from prela_stream.codec.sampled import KeptFragment
from prela_stream.model.decision import Decision, TraceSummary, Trigger
from prela_stream.model.span import COUNTED, SpanData, SpanEvent, SpanLink, SpanStatus, SpanType
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SECOND, batch, decision, fragment, trace_id

MARKUP: Final = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
"""What runs if it is not escaped."""
BIDI: Final = "invoice\u202egpj.exe\u200b"
ARABIC: Final = "مرحبا، كم تبلغ تكلفة الرحلة إلى لشبونة؟"
HOUR: Final = 3_600 * SECOND
START: Final = time.time_ns() // SECOND * SECOND - 600 * SECOND
"""Recent, so that no store deletes them."""

MANY, HOSTILE, RIGHT_TO_LEFT, MEGABYTE, ROOTLESS, FIVE_ROOTS, LOST, OPEN, TWO_DAYS, CHAT, CHAT_AGAIN = range(
    0x1001, 0x100C
)
"""Numbers of the traces; see `trace_id`."""


def kept_traces() -> list[KeptFragment]:
    """All of them."""
    return [
        trace(MANY, many(), root_name="many spans"),
        trace(HOSTILE, hostile(), root_name=MARKUP, policy=MARKUP, reason=BIDI),
        trace(RIGHT_TO_LEFT, right_to_left(), root_name=ARABIC),
        trace(MEGABYTE, megabyte(), root_name="a megabyte"),
        trace(ROOTLESS, rootless(), root_name="", trigger=Trigger.IDLE, complete=False),
        trace(FIVE_ROOTS, five_roots(), root_name="first of five", complete=False),
        trace(LOST, still_open(LOST), root_name="lost agent", trigger=Trigger.LOST, complete=False),
        trace(OPEN, still_open(OPEN), root_name="open agent", trigger=Trigger.MAX_AGE, complete=False),
        trace(TWO_DAYS, two_days(), root_name="two days", duration_ns=48 * HOUR),
        trace(CHAT, chat(CHAT, "Lisbon"), root_name="trip"),
        trace(CHAT_AGAIN, chat(CHAT_AGAIN, "Porto", failed=True), root_name="trip"),
    ]


async def fill(options: SqliteOptions, fragments: Iterable[KeptFragment], dropped: Iterable[Decision] = ()) -> None:
    """Write them to a store."""
    sink = SqliteSink(options)
    for number, one in enumerate(fragments, 1):
        await sink.write(batch(one, next_offset=number))
    for number, verdict in enumerate(dropped, 1):
        await sink.write(batch(decisions=[verdict], next_offset=1_000 + number))
    await sink.aclose()


def dropped_decision(number: int) -> Decision:
    """A decision to drop."""
    return decision(
        number, kept=False, weight=0.0, probability=0.05, policy="rest", reason="probabilistic: 5 % of all traces"
    )


def trace(number: int, spans: list[SpanData], *, root_name: str, **changes: Any) -> KeptFragment:
    """These spans with a decision that fits them."""
    known = [span for span in spans if span.start_ns]
    duration = changes.pop("duration_ns", None) or next(
        (span.duration_ns for span in spans if span.parent_span_id is None and span.duration_ns), SECOND
    )
    summary = TraceSummary(
        root_name=root_name,
        service="travel",
        start_ns=min(span.start_ns for span in known),
        duration_ns=duration,
        spans=len(spans),
        errors=sum(span.status is SpanStatus.ERROR for span in spans),
    )
    return fragment(decision(number, summary=summary, **changes), spans)


def one(
    number: int, index: int, parent: int | None, name: str, start_ms: float = 0, ms: float | None = 10, **changes: Any
) -> SpanData:
    """Span `index` of a trace, `start_ms` after its start."""
    base = SpanData(
        trace_id=trace_id(number),
        span_id=f"{index + 1:016x}",
        parent_span_id=None if parent is None else f"{parent + 1:016x}",
        name=name,
        status=SpanStatus.SUCCESS,
        start_ns=START + int(start_ms * 1e6),
        duration_ns=None if ms is None else int(ms * 1e6),
        flags=0 if parent is None else COUNTED,
    )
    return msgspec.structs.replace(base, **changes)


def many(spans: int = 5_000) -> list[SpanData]:
    """An agent with steps of a model call and nine tools, whose names differ, so that nothing is folded."""
    found = [one(MANY, 0, None, "many spans", 0, spans * 2.0, span_type=SpanType.AGENT)]
    index, failures = count(1), 0
    while len(found) < spans:
        step = next(index)
        at = len(found) * 2.0
        found.append(one(MANY, step, 0, f"step {step}", at, 18))
        for part in range(min(9, spans - len(found))):
            kind = SpanType.LLM if part == 0 else SpanType.TOOL
            failed = SpanStatus.ERROR if step > 4_300 and part == 5 and not failures else SpanStatus.SUCCESS
            failures += failed is SpanStatus.ERROR
            inner = one(
                MANY, next(index), step, f"call {len(found)}", at + part * 2, 1.5, span_type=kind, status=failed
            )
            found.append(inner)
    return found


def hostile() -> list[SpanData]:
    """Markup and invisible characters in every text of every span."""
    message = {
        "role": MARKUP,
        "parts": [
            {"type": "text", "content": f"[{MARKUP}](javascript:alert(1)) ![x](http://evil.test/x.png) {MARKUP} {BIDI}"}
        ],
    }
    attributes = {
        MARKUP: MARKUP,
        BIDI: BIDI,
        "gen_ai.request.model": MARKUP,
        "gen_ai.agent.name": MARKUP,
        "gen_ai.tool.name": MARKUP,
        "gen_ai.conversation.id": MARKUP,
        "user.id": MARKUP,
        "error.type": MARKUP,
        "error.message": MARKUP,
        "gen_ai.response.finish_reasons": [MARKUP],
        "gen_ai.input.messages": [message],
        "gen_ai.output.messages": [{**message, "role": "assistant"}],
        "gen_ai.tool.call.arguments": MARKUP,
        "gen_ai.tool.call.result": {"nested": MARKUP},
    }
    events = [SpanEvent(MARKUP, START, {MARKUP: MARKUP})]
    links = [SpanLink(bytes(16), bytes(8), {MARKUP: MARKUP})]
    return [
        one(
            HOSTILE,
            index,
            None if index == 0 else 0,
            MARKUP + BIDI,
            index,
            10,
            span_type=kind,
            status=SpanStatus.ERROR,
            status_message=MARKUP,
            attributes=attributes,
            events=events,
            links=links,
        )
        for index, kind in enumerate(SpanType)
    ]


def right_to_left() -> list[SpanData]:
    """An Arabic question with an answer that mixes directions."""
    return [
        one(RIGHT_TO_LEFT, 0, None, ARABIC, span_type=SpanType.AGENT),
        _call(RIGHT_TO_LEFT, 1, 0, [_text("user", ARABIC)], _text("assistant", f"{ARABIC} 120 € (TAP)")),
    ]


def megabyte() -> list[SpanData]:
    """A prompt of 1 MB of words that Markdown must not choke on."""
    prompt = ("*_[word](" * 120_000)[:1_000_000]
    return [
        one(MEGABYTE, 0, None, "a megabyte", span_type=SpanType.AGENT),
        _call(MEGABYTE, 1, 0, [_text("user", prompt)], _text("assistant", "It is long.")),
    ]


def rootless() -> list[SpanData]:
    """Three spans whose parents never came, two of them with the same one."""
    return [one(ROOTLESS, index, parent, f"orphan {index}", index) for index, parent in ((1, 90), (2, 90), (3, 91))]


def five_roots() -> list[SpanData]:
    """Five roots, each with a child."""
    roots = [one(FIVE_ROOTS, index, None, f"root {index}", index * 5, 20) for index in range(5)]
    return roots + [one(FIVE_ROOTS, 10 + index, index, f"child {index}", index * 5 + 1, 3) for index in range(5)]


def still_open(number: int) -> list[SpanData]:
    """An agent that has not ended, after a tool that has."""
    return [
        one(number, 0, None, "agent", 0, None, span_type=SpanType.AGENT, status=SpanStatus.PENDING),
        one(number, 1, 0, "search", 5, 40, span_type=SpanType.TOOL),
        one(number, 2, 0, "chat", 50, None, span_type=SpanType.LLM, status=SpanStatus.PENDING),
    ]


def two_days() -> list[SpanData]:
    """Work of a minute, a wait of two days for a person, work of a minute."""
    two_days_ms = 48 * 3_600_000
    return [
        one(TWO_DAYS, 0, None, "two days", 0, two_days_ms, span_type=SpanType.AGENT),
        one(TWO_DAYS, 1, 0, "draft", 0, 60_000, span_type=SpanType.LLM),
        one(TWO_DAYS, 2, 0, "publish", two_days_ms - 60_000, 60_000, span_type=SpanType.TOOL),
    ]


def chat(number: int, city: str, *, failed: bool = False) -> list[SpanData]:
    """An agent that calls a model, six tools and the model again. A failed one has another answer and a failed tool."""
    question = _text("user", f"How much is a trip to **{city}**?")
    call = {"type": "tool_call", "id": "call-1", "name": "prices", "arguments": {"city": city}}
    asked = {"role": "assistant", "parts": [{"type": "text", "content": "I look it up."}, call]}
    result = {"type": "tool_call_response", "id": "call-1", "response": "120 €"}
    history = [question, asked, {"role": "tool", "parts": [result]}]
    attributes = {
        "gen_ai.tool.name": "prices",
        "gen_ai.tool.call.id": "call-1",
        "gen_ai.tool.call.arguments": {"city": city},
        **(
            {"error.type": "TimeoutError", "error.message": "no answer"}
            if failed
            else {"gen_ai.tool.call.result": "120 €"}
        ),
    }
    session = {"gen_ai.conversation.id": "session-7", "user.id": "u-17"}
    price = one(
        number,
        2,
        0,
        "execute_tool prices",
        110,
        60,
        span_type=SpanType.TOOL,
        status=SpanStatus.ERROR if failed else SpanStatus.SUCCESS,
        attributes=attributes,
    )
    return [
        one(number, 0, None, "trip", 0, 400, span_type=SpanType.AGENT, attributes=session),
        _call(number, 1, 0, [question], asked, start_ms=5),
        price,
        one(number, 3, 0, "GET /prices", 112, 50),
        *(one(number, 10 + index, 3, "redis GET", 113 + index, 1) for index in range(8)),
        _call(number, 4, 0, history, _text("assistant", f"A trip to {city} is `120 €`."), start_ms=200),
    ]


def _call(
    number: int, index: int, parent: int, messages: list[dict[str, Any]], answer: dict[str, Any], start_ms: float = 1
) -> SpanData:
    attributes = {
        "gen_ai.request.model": "model-a",
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "prela.cost.usd": 0.0123,
        "gen_ai.input.messages": messages,
        "gen_ai.output.messages": [answer],
    }
    return one(number, index, parent, "chat model-a", start_ms, 100, span_type=SpanType.LLM, attributes=attributes)


def _text(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
