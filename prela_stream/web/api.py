"""What the pages need from outside: a store to read, and the state of the pipeline. `app` provides both."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the pipeline page."""

    name: str
    value: str
    state: str = ""
    """`ok`, `warn` or `bad`; empty: neutral."""
    meaning: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A group of figures, or a table."""

    title: str
    figures: Sequence[Figure] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""


class RunningTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that is not decided yet."""

    trace_id: str
    name: str
    service: str
    start_ns: int
    """0 if no start is known."""
    spans: int
    """Spans that have ended."""
    open_spans: int
    errors: int
    state: str
    """`running`, `suspended`, `lost`, or `waiting` for the worker."""


class PipelineSource(Protocol):
    """The state of the pipeline around the store: queue, lag, workers."""

    async def panels(self) -> list[Panel]:
        """The current state. Takes at most a few seconds; what cannot be read is a note in its panel. Raises nothing."""
        ...

    async def running(self) -> list[RunningTrace] | None:
        """The traces that are not decided yet, the oldest first; None if they cannot be read now. Raises nothing."""
        ...
