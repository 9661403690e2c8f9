"""What must not leave the process: content where its capture is off, attributes by name, and what the application's hook removes.

Works on an item that is encoded already, decoded into plain data of our own: so what the hook sees is what would be sent, and
nothing that it does can change an object of the application. An item that none of this concerns is not touched.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from prela_stream import telemetry
from prela_stream.errors import guard
from prela_stream.model import semconv
from prela_stream.model.plain import plain
from prela_stream.model.span import SPAN_TYPES, SpanEvent, SpanType
from prela_stream.privacy.item_fields import Fields

WITHHELD: Final = "prela.withheld"
"""Attribute that says why a span's content is missing: the hook failed, and with what error."""
_CONTENT: Final = (
    semconv.INPUT_MESSAGES,
    semconv.OUTPUT_MESSAGES,
    semconv.SYSTEM_INSTRUCTIONS,
    semconv.TOOL_DEFINITIONS,
    semconv.TOOL_CALL_ARGUMENTS,
    semconv.TOOL_CALL_RESULT,
    semconv.REQUEST_STOP_SEQUENCES,
)
_CONTENT_ELSEWHERE: Final = (
    *("prompt", "prompts", "completion", "messages", "system_prompt"),
    *("prela.function.arguments", "prela.function.result", "function.arguments", "function.result"),
    *("gen_ai.prompt", "gen_ai.prompt.*", "gen_ai.completion", "gen_ai.completion.*", "gen_ai.content.*"),
    *("gen_ai.retrieval.query.text", "gen_ai.retrieval.documents", "gen_ai.evaluation.explanation"),
    *("input.value", "output.value", "llm.input_messages.*", "llm.output_messages.*", "llm.prompts.*", "llm.tools.*"),
    *("llm.prompt", "llm.prompts", "llm.completion", "llm.response", "llm.system", "llm.messages", "llm.content"),
    *("llm.prompt_template.*", "llm.function_call", "embedding.embeddings.*", "embedding.text", "embedding.vector"),
    *("tool.input", "tool.output", "tool.result", "tool.arguments", "tool_call.function.arguments"),
    *("retrieval.query", "retrieval.documents", "retrieval.documents.*", "document.content"),
    *("traceloop.entity.input", "traceloop.entity.output"),
)
"""Names of other conventions, and of people who write attributes by hand. `.*` stands for whatever follows."""
_CONTENT_EVENTS: Final = ("llm.", "tool.", "gen_ai.")
"""Events of these names carry messages, arguments and results under any key."""
_FACTS: Final = frozenset(
    {
        semconv.OPERATION_NAME, semconv.PROVIDER_NAME, semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL, semconv.RESPONSE_ID,
        semconv.FINISH_REASONS, semconv.TOOL_NAME, semconv.TOOL_CALL_ID, semconv.AGENT_NAME, semconv.ERROR_TYPE,
    }
)  # fmt: skip
"""Texts that are no content, whoever writes them."""
_FACTS_SPELLED: Final = frozenset(spelling for name in _FACTS for spelling in semconv.read_keys(name))
_EVENT_FACTS: Final = _FACTS_SPELLED | {"name", "id", "model", *semconv.read_keys(semconv.ERROR_MESSAGE)}
_NUMBERS: Final = ("gen_ai.", "llm.", "prela.", "http.", "anthropic.", "openai.")
"""Numbers under such names are counts, prices and times."""


class Redactable(msgspec.Struct, kw_only=True):
    """A span on its way out, as the hook of `init(redact=…)` gets it: a copy in plain data, to be changed in place."""

    name: str
    """For information: names of spans and events say what is done, and are sent as they are."""
    span_type: SpanType
    attributes: dict[str, Any]
    events: list[SpanEvent]
    """Each with `attributes`, a dict that may be changed."""
    links: list[dict[str, Any]]
    """The attributes of each link."""
    status_message: str | None = None

    def map_text(self, change: Callable[[str], str]) -> None:
        """Replace every text by `change(text)`: in attributes, events and links, however deep, and the status message."""
        change = _text_only(change)
        self.attributes = _mapped(self.attributes, change)
        self.links = _mapped(self.links, change)
        self.events = [SpanEvent(event.name, event.time_ns, _mapped(event.attributes, change)) for event in self.events]
        if self.status_message is not None:
            self.status_message = change(self.status_message)


class Privacy(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken out of every span before it leaves the process."""

    capture_content: bool = True
    """Whether prompts, answers, and arguments and results of tools are sent."""
    content_attributes: tuple[str, ...] = ()
    """Further names of attributes that are content; `.*` at the end stands for whatever follows."""
    withhold: tuple[str, ...] = ()
    """Names of attributes that are never sent, written in the same way."""
    redact: Callable[[Redactable], object] | None = None
    """The application's hook, called for each span when it ends, in the thread that ends it."""

    @property
    def is_active(self) -> bool:
        """Whether any span is concerned."""
        return not self.capture_content or bool(self.withhold) or self.redact is not None

    def apply(self, fields: Fields) -> Fields:
        """The fields without what must not be sent. They are plain and our own; raises what cannot be helped."""
        if self.withhold:
            fields = _filtered(fields, _Names(self.withhold), "attribute", events=())
        if not self.capture_content:
            names = _Names((*_content_names, *self.content_attributes))
            fields = _filtered(fields, names, "capture_off", events=_CONTENT_EVENTS)
        return fields if self.redact is None else _redacted(fields, self.redact)


class _Names:
    """A set of names, some with `.*` at the end."""

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._exact = frozenset(names)
        self._prefixes = tuple(name[:-1] for name in names if name.endswith(".*"))

    def __contains__(self, key: str) -> bool:
        return key in self._exact or key.startswith(self._prefixes)


_content_names: Final = (
    *(spelling for name in _CONTENT for spelling in semconv.read_keys(name)),
    *_CONTENT_ELSEWHERE,
)


def _filtered(fields: Fields, names: _Names, reason: str, *, events: tuple[str, ...]) -> Fields:
    taken = 0

    def rest(attributes: dict[str, Any], *, facts_only: bool = False) -> dict[str, Any]:
        nonlocal taken
        kept = {
            key: value
            for key, value in attributes.items()
            if key not in names and (not facts_only or isinstance(value, int | float) or key in _EVENT_FACTS)
        }
        taken += len(attributes) - len(kept)
        return kept

    filtered = fields._replace(
        attributes=rest(fields.attributes),
        events=[
            [name, time_ns, rest(attributes, facts_only=name.startswith(events) if events else False)]
            for name, time_ns, attributes in fields.events
        ],
        links=[[trace_id, span_id, rest(attributes)] for trace_id, span_id, attributes in fields.links],
    )
    if taken:
        telemetry.WITHHELD_VALUES.add(taken, reason)
    return filtered


def _is_fact(key: str, value: Any) -> bool:
    if isinstance(value, int | float):  # bool is one
        return key.startswith(_NUMBERS)
    return key in _FACTS_SPELLED


def _redacted(fields: Fields, redact: Callable[[Redactable], object]) -> Fields:
    """What the hook leaves; if it fails in any way, only what is no content whatever the hook would have done."""
    span = Redactable(
        name=fields.name,
        span_type=SPAN_TYPES[fields.span_type],
        attributes=fields.attributes,
        events=[SpanEvent(*event) for event in fields.events],
        links=[link[2] for link in fields.links],
        status_message=fields.status_message,
    )
    left: list[Fields] = []
    why = ["the hook of init(redact=…) failed"]
    with guard("redact"):
        try:
            left.append(_taken_back(fields, span, redact(span)))
        except Exception as error:
            why.append(type(error).__name__)
            raise
    if left:
        return left[0]
    telemetry.WITHHELD_VALUES.add(len(fields.attributes), "redact_failed")
    return without_content(fields, ": ".join(why))


def _taken_back(fields: Fields, span: Redactable, answer: object) -> Fields:
    """The fields as the hook has changed them; raises TypeError if it left something else than it was given."""
    if answer is not None:
        close = getattr(answer, "close", None)
        if callable(close):
            close()  # a coroutine, which would complain that nobody awaited it
        msg = f"a redaction hook changes the span in place and returns None, got {type(answer).__name__}; is it async?"
        raise TypeError(msg)
    checked = msgspec.convert(plain(msgspec.structs.asdict(span)), Redactable)
    if len(checked.links) != len(fields.links):
        msg = f"a redaction hook leaves as many links as there were: {len(fields.links)}, got {len(checked.links)}"
        raise TypeError(msg)
    return fields._replace(
        attributes=checked.attributes,
        events=[[event.name, event.time_ns, event.attributes] for event in checked.events],
        links=[[*link[:2], attributes] for link, attributes in zip(fields.links, checked.links, strict=True)],
        status_message=checked.status_message,
    )


def without_content(fields: Fields, why: str) -> Fields:
    """Only what is no content under any rule: ids, times, names, counts, models, stop reasons, the error's type."""
    return fields._replace(
        attributes={
            **{key: value for key, value in fields.attributes.items() if _is_fact(key, value)},
            WITHHELD: why,
        },
        events=[[event[0], event[1], {}] for event in fields.events],
        links=[[link[0], link[1], {}] for link in fields.links],
        status_message=None,
    )


def _text_only(change: Callable[[str], str]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        changed: object = change(text)
        if isinstance(changed, str):
            return changed
        msg = f"map_text() takes a function from text to text; it returned {type(changed).__name__}"
        raise TypeError(msg)

    return checked


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_mapped(part, change) for part in value]
    return value


content_scope: Final[ContextVar[bool | None]] = ContextVar("prela_stream_capture_content", default=None)
scopes_used: Final[list[bool]] = []
"""Not empty once `capture_content()` was called in this process: until then no span asks the variable above."""


@contextmanager
def capture_content(on: bool) -> Iterator[None]:
    """For spans that begin in the block, whatever `init(capture_content=…)` says: record content (True) or not (False).

    Holds for tasks that are started inside, for the calls of traced libraries and for threads to which `wrap()` carries it. Off:
    prompts, answers, and arguments and results of tools are left out; tokens, latency, cost, stop reasons and errors stay.
    """
    given: object = on
    if not isinstance(given, bool):
        with guard("capture_content"):
            msg = f"capture_content() takes True or False, got {given!r}; content is not recorded in the block"
            raise TypeError(msg)
        on = False
    if not scopes_used:
        scopes_used.append(True)
    before = content_scope.get()
    content_scope.set(on)
    try:
        yield
    finally:
        content_scope.set(before)  # not by token: a generator may be closed in another context


def captures_content(default: bool) -> bool:
    """Whether a call that begins now is to be recorded with its content; `default` is what the process was set to."""
    scope = content_scope.get()
    return default if scope is None else scope
