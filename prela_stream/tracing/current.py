"""The current span: how it is entered, left and read. Generators need more than a context variable; see `generators`."""

from collections.abc import Callable
from types import FrameType
from typing import Final

from prela_stream.tracing.generators import (
    FrameEntry,
    entering_generator,
    nearest_entry,
    previous_of,
    resolve,
    unwatch,
    watch,
    watched,
    without_ended,
)
from prela_stream.tracing.parent import Parent, get_raw, set_raw

_OTHER_TRACER: Final = 0
"""A key in `watched`, so that the check for generators on the hot path also covers `other_tracer`."""
_other_tracers: Final[list[Callable[[Parent | None], Parent | None]]] = []


def join_other_tracer(nearer: Callable[[Parent | None], Parent | None] | None) -> None:
    """Ask `nearer` for the parent of each new span, given the current one of this SDK; None: ask no other tracer.

    `instrumentation.otel` uses it.
    """
    _other_tracers[:] = [] if nearer is None else [nearer]
    if nearer is None:
        watched.pop(_OTHER_TRACER, None)
    else:
        watched[_OTHER_TRACER] = lambda: None


def current() -> Parent | None:
    """The span or trace context that is current for the code that runs now."""
    raw = get_raw()
    if type(raw) is FrameEntry or (watched and not (len(watched) == 1 and _OTHER_TRACER in watched)):
        return resolve(raw)
    return raw


def parent_of_new_span(raw: Parent | None) -> Parent | None:
    """The parent of a span that starts now: as `current()`, unless a span of another tracer is nearer."""
    parent = resolve(raw) if type(raw) is FrameEntry or len(watched) > 1 or _OTHER_TRACER not in watched else raw
    for nearer in _other_tracers:
        parent = nearer(parent)
    return parent


def enter(parent: Parent | None, frame: FrameType | None, scope: object = None) -> Parent | None:
    """Make `parent` current for the code of `frame`; returns what `leave` needs.

    Args:
        parent: The span or trace context to make current; None: the next span starts a trace.
        frame: The frame that enters it.
        scope: A `Scope`; any other value counts as None.
    """
    owner = entering_generator(frame, for_caller=type(scope) is str and scope == "caller")
    nearest = nearest_entry(frame)
    previous = without_ended(get_raw())
    if owner is None and nearest is None:
        set_raw(parent)
        return previous
    entry = FrameEntry(parent, None, None if nearest is None else nearest.owner)
    entry.previous = previous
    if owner is not None:
        watch(entry, owner)
    set_raw(entry)
    return entry


def leave(parent: Parent | None, entered: Parent | None) -> None:
    """Undo the `enter` that returned `entered`, in any context and in any order."""
    entry = entered if type(entered) is FrameEntry and entered.parent is parent else None
    target, previous = (parent, entered) if entry is None else (entry, entry.previous)
    if entry is not None:
        entry.open = False
        if entry.owner is not None:
            unwatch(entry, entry.owner)
    raw = get_raw()
    if raw is target or (raw is parent and entry is not None):  # the latter in a task that was created inside
        set_raw(previous)
        return
    # Left in another context, or before an inner one. No inner one may restore `target` later.
    while raw is not None:
        outer = previous_of(raw)
        if outer is target and target is not None:
            if type(raw) is FrameEntry:
                raw.previous = previous
            else:
                raw._previous = previous  # type: ignore[attr-defined]  # a span: no other type has an outer one
            return
        raw = outer


def forget_generators() -> None:
    """After a fork: entries of generators belong to the parent process."""
    for key in [key for key in watched if key != _OTHER_TRACER]:
        watched.pop(key, None)
