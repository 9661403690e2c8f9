"""The context variable that holds the current span, and the type of what it can hold.

Read it through `current.current()`. Its raw value can be a `FrameEntry` where generators are involved; see `generators`.
"""

from contextvars import ContextVar
from typing import Final, Literal

Scope = Literal["caller"] | None
"""For which code a generator's span is current. None: for what the generator runs; "caller": for the code that resumes the
generator, as a fixture needs it."""


class Parent:
    """What can be the parent of a new span: a `Span`, a `TraceContext`, or a `Deferred`. Never changed while it is current."""

    __slots__ = ()


CURRENT: Final[ContextVar[Parent | None]] = ContextVar("prela_stream_current", default=None)
get_raw: Final = CURRENT.get
"""The value of the variable; a `FrameEntry` where generators are involved."""
set_raw: Final = CURRENT.set
