"""What must not leave the process does not, everything else does, and nothing leaks when redaction fails."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream import telemetry
from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.privacy.encoding import sanitized
from prela_stream.privacy.rules import WITHHELD, Privacy, Redactable, capture_content
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.carrying import wrap
from prela_stream.tracing.tracer import get_tracer
from tests.support.examples import examples

tracer = get_tracer()
OFF = Privacy(capture_content=False)
MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": "my PIN is 4711"}]}]
CALL: dict[str, Any] = {
    "gen_ai.request.model": "claude",
    "gen_ai.input.messages": MESSAGES,
    "gen_ai.output.messages": MESSAGES,
    "gen_ai.system_instructions": MESSAGES,
    "gen_ai.tool.call.arguments": {"pin": "4711"},
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.response.finish_reasons": ["end_turn"],
    "prela.cost.usd": 0.25,
    "llm.prompts.0.content": "4711",
    "input.value": "4711",
    "app.note": "kept",
}
IDS = {*semconv.read_keys(semconv.TOOL_CALL_ID)}
FACTS = {
    "gen_ai.request.model": "claude",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.response.finish_reasons": ["end_turn"],
    "prela.cost.usd": 0.25,
}


@contextmanager
def captured_under(privacy: Privacy) -> Iterator[CapturedSpans]:
    """Spans as they are sent under these rules."""
    with capture_spans() as captured:
        tracer.configure(privacy=privacy)
        try:
            yield captured
        finally:
            tracer.configure(privacy=Privacy())


def record_call() -> None:
    """A model call with every kind of attribute."""
    with tracer.span("chat", SpanType.LLM, CALL) as span:
        span.add_event("llm.request", {"anything": "4711", "messages": MESSAGES, "tokens": 3})
        span.add_event("milestone", {"step": "planned"})
        span.add_link(span, {"gen_ai.input.messages": MESSAGES, "why": "batch"})


def assert_absent(captured: CapturedSpans, text: str) -> None:
    """No item holds this text."""
    assert [item for item in captured.items if text.encode() in item] == []


def test_capture_off_keeps_tokens_cost_stop_reasons_and_what_is_no_content() -> None:
    before = telemetry.WITHHELD_VALUES.value("capture_off")
    with captured_under(OFF) as captured:
        record_call()
    assert_absent(captured, "4711")
    (span,) = captured.spans
    assert span.attributes == {**FACTS, "app.note": "kept"}
    assert [(event.name, event.attributes) for event in span.events] == [
        ("llm.request", {"tokens": 3}),
        ("milestone", {"step": "planned"}),
    ]
    assert [link.attributes for link in span.links] == [{"why": "batch"}]
    assert span.duration_ns is not None
    assert telemetry.WITHHELD_VALUES.value("capture_off") - before == 9


def test_capture_off_keeps_errors() -> None:
    with captured_under(OFF) as captured, pytest.raises(ValueError, match="bad"), tracer.span("chat"):
        raise ValueError("bad")
    (span,) = captured.spans
    assert span.status is SpanStatus.ERROR
    assert span.status_message == "bad"
    assert set(span.attributes) == {"error.type", "error.message", "error.stacktrace"}


@pytest.mark.parametrize(
    "name", sorted({alias for alias, home in semconv.ALIASES.items() if "tool.call" in home} - IDS)
)
def test_every_spelling_of_content_is_known(name: str) -> None:
    with captured_under(OFF) as captured:
        tracer.span("chat", attributes={name: "4711"}).end()
    assert_absent(captured, "4711")


def test_names_of_content_and_names_that_are_never_sent() -> None:
    rules = Privacy(capture_content=False, content_attributes=("app.question",), withhold=("user.*", "token"))
    with captured_under(rules) as captured:
        tracer.span("x", attributes={"app.question": 1, "user.id": 2, "userless": 3, "token": 4, "tokens": 5}).end()
    assert captured.spans[0].attributes == {"userless": 3, "tokens": 5}
    with captured_under(msgspec.structs.replace(rules, capture_content=True)) as captured:
        tracer.span("x", attributes={"app.question": 1, "user.id": 2}).end()
    assert captured.spans[0].attributes == {"app.question": 1}


async def test_a_block_decides_for_the_spans_that_begin_in_it() -> None:
    async def call() -> None:
        await asyncio.sleep(0)
        record_call()

    with captured_under(Privacy()) as captured:
        early = tracer.start_span("early", attributes={"prompt": "early 1"})
        with capture_content(False):
            late = tracer.start_span("late", attributes={"prompt": "4711"})
            early.end()
            await asyncio.gather(call(), call())
            await asyncio.to_thread(wrap(record_call))
            with capture_content(True):
                tracer.span("inner", attributes={"prompt": "inner 2"}).end()
        late.end()
        tracer.span("after", attributes={"prompt": "after 3"}).end()
    assert_absent(captured, "4711")
    kept = {span.attributes["prompt"] for span in captured.spans if "prompt" in span.attributes}
    assert kept == {"early 1", "inner 2", "after 3"}


def test_a_block_can_capture_where_the_process_does_not() -> None:
    with captured_under(OFF) as captured:
        with capture_content(True):
            record_call()
        record_call()
    assert [len(span.attributes) for span in captured.spans] == [len(CALL), len(FACTS) + 1]


def test_anything_but_a_bool_turns_capture_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    with captured_under(Privacy()) as captured, capture_content("yes"):  # type: ignore[arg-type]
        record_call()
    assert_absent(captured, "4711")


# --- the hook ---


def mask(text: str) -> str:
    return text.replace("4711", "****")


def test_the_hook_sees_plain_data_and_what_it_leaves_is_sent() -> None:
    seen: list[Redactable] = []

    def redact(span: Redactable) -> None:
        seen.append(span)
        span.attributes["by"] = "hook"
        span.map_text(mask)

    mine = [{"content": "PIN 4711", "odd": {1, 2}}]
    with captured_under(Privacy(redact=redact)) as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span("agent", SpanType.AGENT, {"messages": mine}) as span:
            span.add_event("answer", {"text": ["4711"]})
            span.add_link(span, {"text": "4711"})
            span.set_status(SpanStatus.ERROR, "4711 is wrong")
    assert_absent(captured, "4711")
    (sent,) = captured.spans
    assert (seen[0].name, seen[0].span_type) == ("agent", SpanType.AGENT)
    assert sent.attributes == {"messages": [{"content": "PIN ****", "odd": [1, 2]}], "by": "hook"}
    assert sent.events[0].attributes == {"text": ["****"]}
    assert sent.links[0].attributes == {"text": "****"}
    assert sent.status_message == "**** is wrong"
    assert mine == [{"content": "PIN 4711", "odd": {1, 2}}], "the application's own object was changed"


def fails(span: Redactable) -> None:
    span.map_text(mask)
    raise LookupError("4711")


async def is_async(span: Redactable) -> None:
    span.map_text(mask)


def returns(span: Redactable) -> Redactable:
    return span


def breaks_attributes(span: Redactable) -> None:
    span.attributes = None  # type: ignore[assignment]


def breaks_links(span: Redactable) -> None:
    span.links = []


def maps_to_nothing(span: Redactable) -> None:
    span.map_text(lambda text: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("hook", [fails, is_async, returns, breaks_attributes, breaks_links, maps_to_nothing])
def test_a_hook_that_fails_withholds_the_content_and_the_span_arrives(
    hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    before = telemetry.WITHHELD_VALUES.value("redact_failed")
    with captured_under(Privacy(redact=hook)) as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span("chat", SpanType.LLM, {**CALL, "card": 4711, "error.type": "Refused"}) as span:
            span.add_event("llm.request", {"messages": MESSAGES})
            span.add_link(span, {"text": "4711"})
            span.set_status(SpanStatus.ERROR, "4711")
    assert_absent(captured, "4711")
    (sent,) = captured.spans
    why = sent.attributes.pop(WITHHELD)
    assert why.startswith("the hook of init(redact=…) failed")
    assert ("LookupError" in why) == (hook is fails)
    assert sent.attributes == {**FACTS, "error.type": "Refused"}
    assert [(event.name, event.attributes) for event in sent.events] == [("llm.request", {})]
    assert sent.links[0].attributes == {}
    assert (sent.status, sent.status_message) == (SpanStatus.ERROR, None)
    assert telemetry.WITHHELD_VALUES.value("redact_failed") > before


def test_a_span_that_ends_inside_the_hook_is_sent_without_its_content() -> None:
    def redact(span: Redactable) -> None:
        with tracer.span("lookup", attributes={"query": "4711", "gen_ai.request.model": "m"}):
            span.map_text(mask)

    before = telemetry.WITHHELD_VALUES.value("inside_redact")
    with captured_under(Privacy(redact=redact)) as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span("outer", attributes={"text": "PIN 4711"}):
            pass
    assert_absent(captured, "4711")
    assert captured.find("outer").attributes == {"text": "PIN ****"}
    assert captured.find("lookup").attributes == {
        "gen_ai.request.model": "m",
        WITHHELD: "the span ended inside the hook of init(redact=…)",
    }
    assert telemetry.WITHHELD_VALUES.value("inside_redact") == before + 2
    with captured_under(Privacy(redact=redact)) as captured, tracer.span("again", attributes={"text": "PIN 4711"}):
        pass
    assert captured.find("again").attributes == {"text": "PIN ****"}, "the hook is called again after it has ended"


def test_an_exit_in_the_hook_passes_and_the_span_is_sent_without_its_content() -> None:
    def leave(span: Redactable) -> None:
        raise SystemExit(3)

    with captured_under(Privacy(redact=leave)) as captured, pytest.raises(SystemExit):  # noqa: SIM117 - shows the nesting
        with tracer.span("outer", attributes={"text": "PIN 4711", "gen_ai.request.model": "m"}):
            pass
    assert_absent(captured, "4711")
    assert captured.find("outer").attributes["gen_ai.request.model"] == "m"


def test_under_strict_the_hooks_error_is_let_out_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")
    with captured_under(Privacy(redact=fails)) as captured, pytest.raises(LookupError):
        record_call()
    assert_absent(captured, "PIN")


def test_nothing_leaks_if_the_rules_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    class Broken(Privacy, frozen=True):
        def apply(self, fields: Any) -> Any:
            raise RuntimeError("broken")

    with captured_under(Privacy()) as captured:
        record_call()
    item = sanitized(captured.items[-1], Broken(capture_content=False), 750_000)
    assert b"4711" not in item
    assert b"chat" in item


# --- secrets ---


class SecretText:
    """As pydantic's SecretStr, but its text form reveals the secret."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"SecretText({self._value})"


class SecretString(str):
    __slots__ = ()

    def get_secret_value(self) -> str:
        return str(self)


class SecretDict(dict[str, Any]):
    def get_secret_value(self) -> Any:
        return dict(self)


@dataclasses.dataclass(frozen=True)
class SecretData:
    value: str

    def get_secret_value(self) -> str:
        return self.value


class SecretStruct(msgspec.Struct):
    value: str

    def get_secret_value(self) -> str:
        return self.value


@dataclasses.dataclass
class Config:
    name: str
    key: Any


class StructConfig(msgspec.Struct):
    name: str
    key: Any


SECRETS = [SecretText("4711"), SecretString("4711"), SecretDict(a="4711"), SecretData("4711"), SecretStruct("4711")]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: type(secret).__name__)
def test_secrets_are_never_serialized(secret: Any) -> None:
    values: dict[str, Any] = {
        "itself": secret,
        "in a dict": {"key": secret},
        "in a list": [secret, (secret,)],
        "in a dataclass": Config("c", secret),
        "in a Struct": StructConfig("s", [Config("c", secret)]),
        "in something unknown": type("Unknown", (), {"__repr__": lambda self: "unknown"})(),
    }
    with captured_under(Privacy()) as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span("x", attributes={**values, "beside": object()}) as span:
            span.add_event("e", values)
            span.add_link(span, values)
            span.set_attribute("late", secret)
    assert_absent(captured, "4711")
    (sent,) = captured.spans
    assert sent.attributes["itself"] == "[secret]"
    assert sent.attributes["in a dataclass"] == {"name": "c", "key": "[secret]"}
    assert sent.attributes["in a Struct"] == {"name": "s", "key": [{"name": "c", "key": "[secret]"}]}
    assert sent.attributes["late"] == "[secret]"


def test_secrets_as_keys() -> None:
    with captured_under(Privacy()) as captured:
        tracer.span("x", attributes={"map": {SecretString("4711"): 1}, "other": {SecretData("4711"): 1}}).end()
    assert_absent(captured, "4711")


def test_secrets_as_names_and_messages() -> None:
    secret = SecretString("4711")
    with captured_under(Privacy()) as captured:  # noqa: SIM117 - shows the nesting
        with tracer.span(secret, attributes={secret: 1}) as span:
            span.add_event(secret, {secret: secret})
            span.set_status(SpanStatus.ERROR, secret)
            span.suspend(reason=secret)
    assert_absent(captured, "4711")
    assert captured.spans[0].name == "[secret]"


LEAVES = st.sampled_from(SECRETS) | st.text(max_size=5) | st.integers() | st.none()
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | inner.map(lambda value: Config("c", value))
        | inner.map(lambda value: StructConfig("s", value))
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(value=NESTED)
@examples(150)
def test_secrets_are_found_however_deep(value: Any) -> None:
    with captured_under(Privacy()) as captured:
        tracer.span("x", attributes={"value": value}).end()
    assert len(captured.spans) == 1
    if "4711" not in repr(value).replace("SecretText(4711)", ""):
        assert_absent(captured, "4711")
