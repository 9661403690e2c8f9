"""The shape of the table of scenarios: what an application does with a client, what the server sends, and what is recorded.

`anthropic_scenarios.py` and `openai_scenarios.py` have one row for each name in `NAMES`, and each row a sync and an async form.
"""

import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from prela_stream.model.span import SpanStatus, SpanType
from tests.support.model_api import Reply

NAMES: Final = (
    "create",
    "create a stream and read it",
    "stream helper: texts",
    "stream helper: events",
    "stream helper: final answer",
    "raw response",
    "raw response of a stream",
    "streaming response and read()",
    "beta create",
    "count tokens",
    "overloaded twice, then an answer",
    "400",
    "break and close",
    "break and drop",
    "never iterated",
    "cancelled in the middle",
    "truncated by the server",
    "tool runner",
    "tool runner with streams",
)
"""The 19 scenarios."""
DEADLINE: Final = 30


class Expected(NamedTuple):
    """One span, whole."""

    name: str
    span_type: SpanType
    attributes: Mapping[str, Any]
    """All of them but those that differ from run to run."""
    status: SpanStatus = SpanStatus.SUCCESS
    message: str | None = None
    events: tuple[str, ...] = ("llm.request", "llm.response")
    is_below_agent: bool = False
    """The parent is the AGENT span of a tool runner; otherwise that of the application."""


class Row(NamedTuple):
    """One scenario of one library. Both forms take a client and return everything that the application sees."""

    replies: Callable[[threading.Event], list[Reply]]
    """What the server sends, one for each request. The gate opens when the application has finished."""
    sync: Callable[[Any], Any]
    asynchronous: Callable[[Any], Awaitable[Any]]
    spans: tuple[Expected, ...]
    """In the order of their starts."""
    since: str = ""
    """The first version of the library that has it; empty: all that are supported."""


def raised(error: BaseException) -> tuple[str, str]:
    """What the application sees of an exception."""
    return type(error).__name__, str(error)
