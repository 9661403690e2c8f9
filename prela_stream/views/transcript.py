"""The conversation of a whole trace: each message once, in order, although every model call sends the history again. Pure."""

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import SpanData, SpanStatus, SpanType
from prela_stream.model.tree import SpanNode, SpanTree
from prela_stream.views.content import Message, Part, SpanContent, content_of
from prela_stream.views.facts import SpanFacts, facts_of

EntryKind = Literal["agent", "message", "tool", "failure"]
_TOOL_TYPES: Final = frozenset({SpanType.TOOL, SpanType.RETRIEVAL})


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a transcript."""

    kind: EntryKind
    """`agent`: an agent begins. `message`: of a model call. `tool`: what a tool was given and returned. `failure`: a model call
    that failed."""
    number: int
    """Of the span that it comes from; see `rows`."""
    span: SpanData
    facts: SpanFacts
    message: Message | None = None
    is_answer: bool = False
    """The message is the answer of the model, and not a part of its input."""
    arguments: Part | None = None
    result: Part | None = None
    depth: int = 0
    """How many agents are around it."""


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation of a trace."""

    entries: tuple[Entry, ...]
    model_calls: int
    """Model calls in the trace, each leaf once."""
    unreadable_calls: int
    """Model calls without any recorded message: content was not captured, or its shape is not known."""
    repeated_messages: int
    """Messages that were sent again as history, and are not repeated here."""


def transcript_of(tree: SpanTree[SpanData]) -> Transcript:
    """The conversation of a trace, in order of the tree.

    A message that a model call sends again is history. It is recognised within its agent by role and content, and as often as it
    was there before: a second "yes" of the user is a message. A tool's result is shown with the tool's span, if there is one.
    """
    return _Writer(tree).transcript()


class _Writer:
    def __init__(self, tree: SpanTree[SpanData]) -> None:
        self._tree = tree
        self._calls = {id(span) for span in tree.leaf_llm}
        self._known: dict[int, Counter[bytes]] = {}
        """By the index of an agent (-1: none): how often each message was part of its conversation."""
        self._scopes: dict[int, tuple[int, int]] = {}
        """By the index of a span: the index of its agent, and how many agents are around it."""
        self._results: Counter[bytes] = Counter()
        """Results of tools that were shown with their spans."""
        self._call_ids: set[str] = set()
        self._unreadable = self._repeated = 0
        """Ids of the calls whose tools have spans."""
        for span in tree.spans:
            call_id = semconv.read(span.attributes, semconv.TOOL_CALL_ID)
            if span.span_type in _TOOL_TYPES and isinstance(call_id, str):
                self._call_ids.add(call_id)

    def transcript(self) -> Transcript:
        entries = [entry for number, node in enumerate(self._tree.walk(), 1) for entry in self._entries(number, node)]
        return Transcript(
            entries=tuple(entries),
            model_calls=len(self._calls),
            unreadable_calls=self._unreadable,
            repeated_messages=self._repeated,
        )

    def _entries(self, number: int, node: SpanNode[SpanData]) -> Iterator[Entry]:
        span = node.span
        scope, depth = (-1, 0) if node.parent is None else self._scopes[node.parent.index]
        is_agent = span.span_type is SpanType.AGENT
        self._scopes[node.index] = (node.index, depth + 1) if is_agent else (scope, depth)
        if is_agent:
            yield Entry(kind="agent", number=number, span=span, facts=facts_of(span), depth=depth)
        elif id(span) in self._calls:
            yield from self._call(number, span, scope, depth)
        elif span.span_type in _TOOL_TYPES:
            entry = self._tool(number, span, depth)
            if entry.arguments or entry.result or span.status is SpanStatus.ERROR:
                yield entry

    def _call(self, number: int, span: SpanData, scope: int, depth: int) -> Iterator[Entry]:
        content, facts = content_of(span), facts_of(span)
        self._unreadable += not content
        known = self._known.setdefault(scope, Counter())
        now: Counter[bytes] = Counter()
        for message, is_answer in _messages(content):
            digest = _digest(message)
            now[digest] += 1
            if not is_answer and (now[digest] <= known[digest] or self._was_shown(message)):
                self._repeated += 1
                continue
            yield Entry(
                kind="message",
                number=number,
                span=span,
                facts=facts,
                message=message,
                is_answer=is_answer,
                depth=depth,
            )
        known |= now
        if span.status is SpanStatus.ERROR:
            yield Entry(kind="failure", number=number, span=span, facts=facts, depth=depth)

    def _tool(self, number: int, span: SpanData, depth: int) -> Entry:
        content = content_of(span)
        if content.result is not None:
            self._results[_text_digest(content.result.text)] += 1
        return Entry(
            kind="tool",
            number=number,
            span=span,
            facts=facts_of(span),
            arguments=content.arguments,
            result=content.result,
            depth=depth,
        )

    def _was_shown(self, message: Message) -> bool:
        """Whether a message has only results of tools whose spans are in the transcript."""
        results = [part for part in message.parts if part.kind == "tool_result"]
        return bool(results) and len(results) == len(message.parts) and all(map(self._has_span, results))

    def _has_span(self, result: Part) -> bool:
        return result.call_id in self._call_ids or self._results[_text_digest(result.text)] > 0


def _messages(content: SpanContent) -> Iterator[tuple[Message, bool]]:
    if content.system:
        yield Message(role="system", parts=content.system), False
    for message in content.input:
        yield message, False
    for message in content.output:
        yield message, True


def _digest(message: Message) -> bytes:
    digest = blake2b(message.role.encode("utf-8", "replace"), digest_size=16)
    for part in message.parts:
        digest.update(f"\0{part.kind}\0{part.name}\0{part.text}".encode("utf-8", "replace"))
    return digest.digest()


def _text_digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
