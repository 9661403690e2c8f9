"""Which position in which trace the running code has, also where generators are suspended.

One ContextVar holds it, and would be enough but for generators: a generator runs in the context of whoever resumes it, so what
its `with` sets is still there when it has yielded, and the loop that consumes it would become its child. Hence:

- What a generator's own frame enters is kept as a `Placed`, which knows that frame. It counts for what runs above that frame on
  the stack, whichever thread, task or context resumed the generator, and not for anything else that finds it in its context.
- A generator that runs as a context manager enters for the caller of `__enter__`; so do exit stacks.
- A copy of the context (a callback, another thread) may be read when its maker's frame is not on the stack. If the generator
  waits at an `await` or runs in another thread, it is what made the copy and waits for it; if it has yielded or ended, its
  consumer is. Tasks may outlive both, so while a generator's span is open on an event loop, tasks are made with a context that
  says which of the two it was at that moment.

As long as no generator's frame is in `watched`, none of this costs more than a look at the caller's code object.
"""

import dis
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final, Literal

GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
ON_BEHALF: Final = frozenset({"__enter__", "__aenter__", "enter_context", "enter_async_context"})
"""Functions that enter something for their caller."""
Scope = Literal["caller"] | None
"""What in a generator sees what the generator enters: None: the generator; "caller": whoever resumes it, as in a fixture."""

_RESUME: Final = dis.opmap["RESUME"]
_AFTER_AWAIT: Final = 3
_FEW: Final = 16
"""Up to so many open generators are looked at one by one before the stack is walked."""
_getframe: Final = sys._getframe


class Position:
    """What can be current: a `Span`, or a `TraceContext` whose spans are still to come. Never changed while it is current."""

    __slots__ = ()


CURRENT: Final[ContextVar[Position | None]] = ContextVar("prela_stream_current", default=None)
get_raw: Final = CURRENT.get
"""The variable itself: a `Placed` where generators are involved. `current()` says what it means here."""
set_raw: Final = CURRENT.set


class Owner:
    """A generator that has something open."""

    __slots__ = ("frame", "instructions")

    def __init__(self, frame: FrameType) -> None:
        self.frame: FrameType | None = frame
        """None once it has nothing open any more: a frame keeps all its variables alive."""
        self.instructions: bytes | None = None

    def goes_on(self) -> bool:
        """Asked where it is not on the stack: whether it is at work, in another thread or waiting at an `await`."""
        frame = self.frame
        if frame is None:
            return False
        if frame.f_back is not None:
            return True
        if not frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            return False
        if self.instructions is None:
            self.instructions = frame.f_code.co_code  # made anew at each look
        place = frame.f_lasti  # of the `yield`, and from CPython 3.13 on of the RESUME that follows it
        if self.instructions[place] != _RESUME:
            place += 2
        resume = self.instructions[place : place + 2]
        return len(resume) == 2 and resume[0] == _RESUME and resume[1] & 3 == _AFTER_AWAIT


class Placed(Position):
    """A position that a generator's frame entered, or that was entered above such a frame on the stack."""

    __slots__ = ("__weakref__", "before", "below", "hook", "inside", "open", "owner", "position")

    def __init__(self, position: Position | None, owner: Owner | None, inside: Owner | None) -> None:
        self.position = position
        self.owner = owner
        """None for what a function entered."""
        self.inside = inside
        """The nearest generator on the stack of that moment that had something open."""
        self.before: Position | None = None
        self.below: Placed | None = None
        """What the same generator had entered before."""
        self.hook: _TaskHook | None = None
        self.open = True

    def __del__(self) -> None:
        if self.open and self.hook is not None:  # the generator was dropped, and what is in its `finally` never ran
            self.hook.release()


watched: Final[dict[int, Callable[[], Placed | None]]] = {}
"""The last open Placed of each generator's frame, by the frame's id. Weak: its span holds it, which the frame's `with` holds."""
BRIDGE: Final = 0
"""A key in `watched` that says that `foreign` is set."""
foreign: list[Callable[[Position | None], Position | None]] = []
"""What may know a nearer parent for new spans; see `instrumentation.otel`."""


def current() -> Position | None:
    """The position of the code that runs now."""
    raw = get_raw()
    return _resolve(raw) if watched or type(raw) is Placed else raw


def parent_here(raw: Position | None) -> Position | None:
    """What a new span hangs below; as `current()`, unless a tracer of another kind is nearer."""
    position = _resolve(raw)
    for nearer in foreign:
        position = nearer(position)
    return position


def enter(position: Position | None, frame: FrameType | None, scope: object = None) -> Position | None:
    """Make a position current for the code of `frame`; returns what `leave` needs.

    Args:
        position: What is to be current.
        frame: Of the code that enters it.
        scope: A `Scope`; anything else is as None.
    """
    owner = _owner(frame)
    while type(scope) is str and scope == "caller" and owner is not None:
        owner = _owner(owner.f_back)
    near = _nearest(frame)
    before = _without_the_dead(get_raw())
    if owner is None and near is None:
        set_raw(position)
        return before
    placed = Placed(position, None, None if near is None else near.owner)
    placed.before = before
    if owner is not None:
        _watch(placed, owner)
    set_raw(placed)
    return placed


def leave(position: Position | None, entered: Position | None) -> None:
    """Undo `enter`, which returned `entered`, in any context and in any order."""
    placed = entered if type(entered) is Placed and entered.position is position else None
    target, before = (position, entered) if placed is None else (placed, placed.before)
    if placed is not None:
        placed.open = False
        if placed.owner is not None:
            _unwatch(placed, placed.owner)
    raw = get_raw()
    if raw is target or (raw is position and placed is not None):  # the latter in a task that was made inside
        set_raw(before)
        return
    # Left in another context, or before what is inside: whoever would restore it later, must not.
    while raw is not None:
        outer = before_of(raw)
        if outer is target and target is not None:
            if type(raw) is Placed:
                raw.before = before
            else:
                raw._previous = before  # type: ignore[attr-defined]  # a span: nothing else has one
            return
        raw = outer


def before_of(raw: Position) -> Position | None:
    """What was in the variable before `raw`."""
    if type(raw) is Placed:
        return raw.before
    previous: Position | None = getattr(raw, "_previous", None)
    return previous


def position_of(raw: Position | None) -> Position | None:
    """The span or trace context itself."""
    return raw.position if type(raw) is Placed else raw


def _owner(frame: FrameType | None) -> FrameType | None:
    """The generator's frame that has the `with`; None if that is in a function."""
    while frame is not None:
        code = frame.f_code
        if code.co_flags & GENERATOR:
            caller = frame.f_back
            if caller is None or caller.f_code.co_name not in ON_BEHALF:
                return frame
        elif code.co_name not in ON_BEHALF:
            return None
        frame = frame.f_back
    return None


def _nearest(frame: FrameType | None) -> Placed | None:
    """What the first watched frame on the stack entered last, from `frame` on outwards."""
    if len(watched) <= _FEW:
        for look in list(watched.values()):
            one = look()
            its_frame = None if one is None or one.owner is None else one.owner.frame
            if its_frame is not None and its_frame.f_back is not None:
                break
        else:
            return None  # every one is suspended
    while frame is not None:
        entry = watched.get(id(frame))
        if entry is not None and (placed := entry()) is not None and placed.owner and placed.owner.frame is frame:
            return placed
        frame = frame.f_back
    return None


def _resolve(raw: Position | None) -> Position | None:
    near = _nearest(_getframe(1)) if watched else None
    raw = _without_the_dead(raw)
    found = raw
    if near is None:
        while type(found) is Placed and (of := found.owner or found.inside) is not None and not of.goes_on():
            found = found.before
        return position_of(found)
    while found is not None and not (type(found) is Placed and found.owner is near.owner):
        if type(found) is Placed and found.owner is None and found.inside is near.owner:
            return found.position
        found = before_of(found)  # of whoever consumes the generator, or of a suspended one that it consumes
    return near.position


def _without_the_dead(raw: Position | None) -> Position | None:
    """`raw` without what generators entered and have left in another context; the variable forgets it too."""
    found = _alive(raw)
    if found is not raw and get_raw() is raw:
        set_raw(found)
    if type(found) is Placed:
        found.before = _alive(found.before)
    return found


def _alive(raw: Position | None) -> Position | None:
    while type(raw) is Placed and not raw.open and raw.owner is not None:
        raw = raw.before
    return raw


# --- frames and loops that are watched ---


def _watch(placed: Placed, frame: FrameType) -> None:
    key = id(frame)
    entry = watched.get(key)
    if entry is not None and (below := entry()) is not None and below.owner and below.owner.frame is frame:
        placed.below, placed.owner = below, below.owner
    else:
        placed.owner = Owner(frame)
    watched[key] = weakref.ref(placed, lambda gone: _forget(key, gone))
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    if loop is not None:
        placed.hook = _TaskHook.of(loop)


def _forget(key: int, gone: Callable[[], Placed | None]) -> None:
    if watched.get(key) is gone:
        watched.pop(key, None)


def _unwatch(placed: Placed, owner: Owner) -> None:
    key = id(owner.frame)
    entry = watched.get(key)
    top = None if entry is None else entry()
    if top is placed:
        below = placed.below
        while below is not None and not below.open:
            below = below.below
        if below is None:
            watched.pop(key, None)
            owner.frame = None
        else:
            watched[key] = weakref.ref(below, lambda gone: _forget(key, gone))
    if placed.hook is not None:
        placed.hook.release()


class _TaskHook:
    """Makes a loop's tasks while a generator's span is open there: each starts with the position of the code that makes it."""

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)
        self._held = 0
        self._before = loop.get_task_factory()
        loop.set_task_factory(self.make)

    @classmethod
    def of(cls, loop: Any) -> "_TaskHook":
        """The loop's own, held once more."""
        with _hooks_lock:
            hook = _hooks.get(loop)
            if hook is None:
                hook = _hooks[loop] = cls(loop)
            hook._held += 1
            return hook

    def release(self) -> None:
        """Held once less; the loop makes its tasks as before when nobody does."""
        with _hooks_lock:
            self._held -= 1
            loop = self._loop()
            if self._held or loop is None:
                return
            _hooks.pop(loop, None)
            if loop.get_task_factory() == self.make:  # else somebody stands before us, and still calls this one
                loop.set_task_factory(self._before)

    def make(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        """A task factory."""
        raw = get_raw()
        set_raw(current())
        try:
            if self._before is not None:
                return self._before(loop, coroutine, **options)
            return sys.modules["asyncio"].Task(coroutine, loop=loop, **options)
        finally:
            set_raw(raw)


_hooks: Final[weakref.WeakKeyDictionary[Any, _TaskHook]] = weakref.WeakKeyDictionary()
_hooks_lock: Final = threading.RLock()  # a finalizer may release one in the midst of this


def forget_frames() -> None:
    """After a fork: what generators had entered is the parent process's; where the child goes on is in its variable."""
    for key in [key for key in watched if key != BRIDGE]:
        watched.pop(key, None)
