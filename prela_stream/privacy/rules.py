"""Removes what must not leave the process: content if its capture is off, attributes by name, and what the hook removes.

It works on plain data that was decoded from an encoded item. So the hook sees exactly what would be sent, and it cannot change an
object of the application. An item that no rule concerns is sent as it was encoded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import msgspec

from prela_stream import telemetry
from prela_stream.errors import HostCall, guard
from prela_stream.model import semconv
from prela_stream.model.plain import plain, safe_text
from prela_stream.model.span import SPAN_TYPES, SpanEvent, SpanType
from prela_stream.privacy.item_fields import Fields
from prela_stream.steps import Block

WITHHELD: Final = "prela.withheld"
"""Attribute with the reason why a span has no content: the hook failed, and with which error."""
_CONTENT_EVENTS: Final = ("llm.", "tool.", "gen_ai.")
"""Events of these names carry messages, arguments and results under any key."""
_FACTS: Final = frozenset(
    {
        semconv.OPERATION_NAME, semconv.PROVIDER_NAME, semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL, semconv.RESPONSE_ID,
        semconv.FINISH_REASONS, semconv.TOOL_NAME, semconv.TOOL_CALL_ID, semconv.AGENT_NAME, semconv.ERROR_TYPE,
    }
)  # fmt: skip
"""Texts that are not content under any convention."""
_FACTS_SPELLED: Final = frozenset(spelling for name in _FACTS for spelling in semconv.read_keys(name))
_EVENT_FACTS: Final = _FACTS_SPELLED | {"name", "id", "model", *semconv.read_keys(semconv.ERROR_MESSAGE)}
_NUMBERS: Final = ("gen_ai.", "llm.", "prela.", "http.", "anthropic.", "openai.")
"""Numbers under such names are counts, prices and times."""


_hook_call: Final = HostCall()


class Redactable(msgspec.Struct, kw_only=True):
    """A span before it is sent, as the hook of `init(redact=…)` receives it: a copy in plain data, to be changed in place."""

    name: str
    """For information. Names of spans and events name an operation, and are sent unchanged."""
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
    """What is removed from every span before it leaves the process."""

    capture_content: bool = True
    """Whether prompts, answers, and arguments and results of tools are sent."""
    content_attributes: tuple[str, ...] = ()
    """Further names of attributes that are content; a name that ends in `.*` is a prefix."""
    withhold: tuple[str, ...] = ()
    """Names of attributes that are never sent, in the same form."""
    redact: Callable[[Redactable], object] | None = None
    """The application's hook, called for each span when it ends, in the thread that ends it."""

    @property
    def is_active(self) -> bool:
        """Whether a rule concerns any span."""
        return not self.capture_content or bool(self.withhold) or self.redact is not None

    def apply(self, fields: Fields) -> Fields:
        """The fields without what must not be sent. They are plain data that no other code holds."""
        if self.withhold:
            fields = _filtered(fields, _Names(self.withhold), "attribute", events=())
        if not self.capture_content:
            names = _Names((*semconv.CONTENT_NAMES, *self.content_attributes))
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
    """What the hook leaves. If the hook fails, only what is not content under any rule.

    A span that ends inside the hook is not passed to the hook, which might never end. It is sent without its content.
    """
    with _hook_call as nested:
        if not nested:
            return _after_hook(fields, redact)
    telemetry.WITHHELD_VALUES.add(len(fields.attributes), "inside_redact")
    return without_content(fields, "the span ended inside the hook of init(redact=…)")


def _after_hook(fields: Fields, redact: Callable[[Redactable], object]) -> Fields:
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
    """The fields as the hook has changed them; raises TypeError if they no longer have their types."""
    if answer is not None:
        close = getattr(answer, "close", None)
        if callable(close):
            close()  # a coroutine, which would warn that it was never awaited
        msg = f"a redaction hook must change the span in place and return None, but it returned {type(answer).__name__}"
        raise TypeError(msg)
    left = msgspec.structs.asdict(span)
    left["events"] = [[event.name, event.time_ns, event.attributes] for event in span.events]
    checked = msgspec.convert(plain(left), Redactable)
    if len(checked.links) != len(fields.links):
        msg = f"a redaction hook must keep the number of links: expected {len(fields.links)}, got {len(checked.links)}"
        raise TypeError(msg)
    return fields._replace(
        attributes=checked.attributes,
        events=[[event.name, event.time_ns, event.attributes] for event in checked.events],
        links=[[*link[:2], attributes] for link, attributes in zip(fields.links, checked.links, strict=True)],
        status_message=checked.status_message,
    )


def without_content(fields: Fields, why: str) -> Fields:
    """Only what is not content under any rule: ids, times, names, counts, models, stop reasons, the error's type."""
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
        msg = f"map_text() needs a function that returns text, but it returned {type(changed).__name__}"
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
"""Not empty after the first `capture_content()` in this process: until then no span reads the variable above."""


def capture_content(on: bool) -> Block[None]:
    """For spans that begin in the block, record content (True) or not (False). It overrides `init(capture_content=…)`.

    It holds for tasks that are started in the block, for the calls of traced libraries, and for threads to which `wrap()` carries
    it. If it is off, prompts, answers, and arguments and results of tools are not recorded. Tokens, latency, cost, stop reasons
    and errors are. As a decorator, it does so for each call of a function.
    """
    return Block(partial(_capture_content, on))


@contextmanager
def _capture_content(on: bool) -> Iterator[None]:
    given: object = on
    if not isinstance(given, bool):
        with guard("capture_content"):
            msg = f"capture_content() needs True or False, got {safe_text(given)}; content is not recorded in the block"
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
    """Whether to record the content of a call that begins now; `default` is the setting of the process."""
    scope = content_scope.get()
    return default if scope is None else scope


def checked_privacy(privacy: Any) -> Privacy:
    """The given rules; raises TypeError if they are none."""
    if isinstance(privacy, Privacy):
        return privacy
    msg = f"privacy= takes a Privacy, got {safe_text(privacy)}; the rules were not changed"
    raise TypeError(msg)
