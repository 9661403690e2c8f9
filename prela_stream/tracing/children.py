"""How a span counts its children and injected contexts: exactly, from any thread, without a lock on the hot path.

Each of them is one byte appended to `_children`. It is either in the count or not counted at all:

    a child starts:  1. create `_children`     2. attributes are CLOSED? then it is not counted
                     3. append a byte; BufferError: it is not counted
    the span ends:   1. attributes = CLOSED    2. `_children` exists? then take a memoryview of it
                     3. count its bytes

A bytearray with a memoryview refuses to grow. If step 2 of the child finds the attributes open, the end has not reached its own
step 2. Then the end counts the byte, or the append fails. This holds in any order of threads.
"""

import threading
from types import MappingProxyType
from typing import Any, Final

from prela_stream.model.span import AFTER_END, COUNTED
from prela_stream.tracing.fields import SpanExtras, SpanView
from prela_stream.tracing.forking import Step, at_fork

CLOSED: Final[Any] = MappingProxyType({})
"""The attributes of an ended span."""
CHILD: Final = 0
INJECT: Final = 1
_lock = threading.RLock()  # reentrant: a finalizer can start a child while this thread holds the lock


class ChildCounts(SpanView):
    """The part of a span that other threads can change at its end."""

    __slots__ = ()

    def _count_child(self) -> int:
        """Count a child; returns the child's flag: COUNTED, or AFTER_END if this span has ended."""
        children = self._child_bytes()
        if self._attributes is CLOSED:
            return AFTER_END
        try:
            children.append(CHILD)
        except BufferError:
            return AFTER_END
        if self._announce_pending:
            self._announce()
        return COUNTED

    def _count_inject(self) -> int | None:
        """Count a context that leaves the process; returns its ordinal, None if this span has ended."""
        with _lock:
            children = self._child_bytes()
            if self._attributes is CLOSED:
                return None
            try:
                children.append(INJECT)
            except BufferError:
                return None
            ordinal = children.count(INJECT) - 1
        if self._announce_pending:
            self._announce()
        return ordinal

    def _uncount_child(self) -> bool:
        """Undo `_count_child` for a child that will never start; False if this span has ended."""
        try:
            self._child_bytes().remove(CHILD)
        except (BufferError, ValueError):
            return False
        return True

    def _child_bytes(self) -> bytearray:
        children = self._children
        if children is None:
            with _lock:  # without it, one of two threads that create the bytearray would lose its child
                if self._children is None:
                    self._children = bytearray()
                children = self._children
        return children

    def _extras(self) -> SpanExtras:
        with _lock:  # without it, one of two threads that create it would lose its event
            if self._more is None:
                self._more = SpanExtras()
            return self._more

    def _announce(self) -> None:
        """Send the START item."""
        raise NotImplementedError


def _renew_lock() -> None:
    """After a fork: another thread of the parent process may have held it."""
    global _lock  # noqa: PLW0603 - one lock per process
    _lock = threading.RLock()


at_fork(Step.LOCKS, in_child=_renew_lock)
