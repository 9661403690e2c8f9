"""Which span is current in generators, and in what they call.

A generator runs in the context of the code that resumes it (PEP 568 describes the problem and was deferred). If its `with`
only set a context variable, the span would stay current after a `yield`, and spans of the consuming loop would become its
children. So an entry made by a generator is stored as a `FrameEntry` with the generator's frame:

- It applies to the code that runs above that frame on the stack, in any thread, task or context, and to no other code that
  finds the entry in its context.
- A generator that runs as a context manager enters for the caller of `__enter__`. Exit stacks do the same.
- A copy of the context (a callback, another thread) can be read when the generator's frame is not on the stack. If the
  generator is running or suspended at an `await`, the copy belongs to the generator. If it has yielded or finished, the copy
  belongs to its consumer.
- Tasks can outlive both. While a generator's span is open on an event loop, a task factory records the right parent when each
  task is created.

While `watched` is empty, all of this costs one check of the caller's code flags.
"""

import dis
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.parent import Parent, get_raw, set_raw

GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
ON_BEHALF: Final = frozenset({"__enter__", "__aenter__", "enter_context", "enter_async_context"})
"""Functions that enter something for their caller."""

_RESUME: Final = dis.opmap["RESUME"]
_AFTER_AWAIT: Final = 3
_FEW: Final = 16
"""Up to this many open generators, each frame is checked before the stack is walked."""
_getframe: Final = sys._getframe  # CPython only; the public `inspect.currentframe` calls it


class GeneratorFrame:
    """A generator that has at least one span open."""

    __slots__ = ("frame", "instructions")

    def __init__(self, frame: FrameType) -> None:
        self.frame: FrameType | None = frame
        """None after the generator's last span has ended: a frame keeps all its variables alive."""
        self.instructions: bytes | None = None

    def is_active(self) -> bool:
        """Whether the generator, which is not on the stack, runs in another thread or is suspended at an `await`."""
        frame = self.frame
        if frame is None:
            return False
        if frame.f_back is not None:
            return True
        if not frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            return False
        # `dis` documents the argument of RESUME: 1 is after a yield, 3 after an await. A suspended frame's `f_lasti` is at the
        # yield before that RESUME; on CPython 3.13 and later it is at the RESUME.
        if self.instructions is None:
            self.instructions = frame.f_code.co_code  # a property that makes a copy
        index = frame.f_lasti
        if self.instructions[index] != _RESUME:
            index += 2
        resume = self.instructions[index : index + 2]
        return len(resume) == 2 and resume[0] == _RESUME and resume[1] & 3 == _AFTER_AWAIT


class FrameEntry(Parent):
    """An entry in the context variable that was made by a generator's frame, or above such a frame on the stack."""

    __slots__ = ("__weakref__", "below", "hook", "inside", "open", "owner", "parent", "previous")

    def __init__(self, parent: Parent | None, owner: GeneratorFrame | None, inside: GeneratorFrame | None) -> None:
        self.parent = parent
        """The span or trace context that is current."""
        self.owner = owner
        """The generator that made the entry; None for a function."""
        self.inside = inside
        """The nearest generator with an open span on the stack at the time of the entry."""
        self.previous: Parent | None = None
        """What the variable held before."""
        self.below: FrameEntry | None = None
        """The previous entry of the same generator."""
        self.hook: TaskHook | None = None
        self.open = True

    def __del__(self) -> None:
        if self.open and self.hook is not None:  # the generator was dropped, so its `finally` never ran
            self.hook.release()


watched: Final[dict[int, Callable[[], FrameEntry | None]]] = {}
"""The last open entry of each generator's frame, by the frame's id. Weak: the frame's `with` holds the span, which holds it."""


def previous_of(raw: Parent) -> Parent | None:
    """What the variable held before `raw` was set."""
    if type(raw) is FrameEntry:
        return raw.previous
    previous: Parent | None = getattr(raw, "_previous", None)
    return previous


def unwrap(raw: Parent | None) -> Parent | None:
    """The span or trace context itself."""
    return raw.parent if type(raw) is FrameEntry else raw


def resolve(raw: Parent | None) -> Parent | None:
    """What is current for the code that runs now, where the variable holds `raw`."""
    nearest = nearest_entry(_getframe(1)) if watched else None
    raw = without_ended(raw)
    found = raw
    if nearest is None:
        while type(found) is FrameEntry and (of := found.owner or found.inside) is not None and not of.is_active():
            found = found.previous
        return unwrap(found)
    while found is not None and not (type(found) is FrameEntry and found.owner is nearest.owner):
        if type(found) is FrameEntry and found.owner is None and found.inside is nearest.owner:
            return found.parent
        found = previous_of(found)  # an entry of the generator's consumer, or of a suspended generator that it consumes
    return nearest.parent


def entering_generator(frame: FrameType | None, *, for_caller: bool) -> FrameType | None:
    """The generator's frame whose `with` is entered; None if a function enters it.

    Args:
        frame: The frame that calls `__enter__`.
        for_caller: Whether that generator enters on behalf of the code that resumes it (`scope="caller"`).
    """
    owner = _generator_of(frame)
    while for_caller and owner is not None:
        owner = _generator_of(owner.f_back)
    return owner


def _generator_of(frame: FrameType | None) -> FrameType | None:
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


def nearest_entry(frame: FrameType | None) -> FrameEntry | None:
    """The last entry of the first watched frame on the stack, from `frame` outwards."""
    if len(watched) <= _FEW:
        for reference in list(watched.values()):
            one = reference()
            its_frame = None if one is None or one.owner is None else one.owner.frame
            if its_frame is not None and its_frame.f_back is not None:
                break
        else:
            return None  # all of them are suspended
    while frame is not None:
        entry = watched.get(id(frame))
        if entry is not None and (last := entry()) is not None and last.owner and last.owner.frame is frame:
            return last
        frame = frame.f_back
    return None


def without_ended(raw: Parent | None) -> Parent | None:
    """`raw` without entries that generators have left in another context. The variable is corrected, too."""
    found = _first_open(raw)
    if found is not raw and get_raw() is raw:
        set_raw(found)
    if type(found) is FrameEntry:
        found.previous = _first_open(found.previous)
    return found


def _first_open(raw: Parent | None) -> Parent | None:
    while type(raw) is FrameEntry and not raw.open and raw.owner is not None:
        raw = raw.previous
    return raw


# --- watched frames ---


def watch(entry: FrameEntry, frame: FrameType) -> None:
    """Note the last entry of a generator's frame."""
    key = id(frame)
    reference = watched.get(key)
    if reference is not None and (below := reference()) is not None and below.owner and below.owner.frame is frame:
        entry.below, entry.owner = below, below.owner
    else:
        entry.owner = GeneratorFrame(frame)
    watched[key] = weakref.ref(entry, lambda dead: _remove(key, dead))
    # `get_running_loop` raises where there is none. The name is absent while another thread imports asyncio.
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop = None if running_loop is None else running_loop()
    if loop is not None:
        entry.hook = TaskHook.of(loop)


def _remove(key: int, dead: Callable[[], FrameEntry | None]) -> None:
    if watched.get(key) is dead:
        watched.pop(key, None)


def unwatch(entry: FrameEntry, owner: GeneratorFrame) -> None:
    """Undo `watch`, in any order."""
    key = id(owner.frame)
    reference = watched.get(key)
    last = None if reference is None else reference()
    if last is entry:
        below = entry.below
        while below is not None and not below.open:
            below = below.below
        if below is None:
            watched.pop(key, None)
            owner.frame = None
        else:
            watched[key] = weakref.ref(below, lambda dead: _remove(key, dead))
    if entry.hook is not None:
        entry.hook.release()


class TaskHook:
    """A task factory that stores the resolved parent in each new task's context.

    It is set on a loop while a generator's span is open there. It calls the factory that was set before.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)
        self._users = 0
        self._previous = loop.get_task_factory()
        loop.set_task_factory(self.make)

    @classmethod
    def of(cls, loop: Any) -> "TaskHook":
        """The hook of this loop, with one user more."""
        with _hooks_lock:
            hook = _hooks.get(loop)
            if hook is None:
                hook = _hooks[loop] = cls(loop)
            hook._users += 1
            return hook

    def release(self) -> None:
        """One user less; after the last one the loop's previous factory is set again."""
        with _hooks_lock:
            self._users -= 1
            loop = self._loop()
            if self._users or loop is None:
                return
            _hooks.pop(loop, None)
            if loop.get_task_factory() == self.make:  # otherwise another factory was set since, and it calls this one
                loop.set_task_factory(self._previous)

    def make(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        """A task factory."""
        raw = get_raw()
        set_raw(resolve(raw))
        try:
            if self._previous is not None:
                return self._previous(loop, coroutine, **options)
            return sys.modules["asyncio"].Task(coroutine, loop=loop, **options)
        finally:
            set_raw(raw)


_hooks: Final[weakref.WeakKeyDictionary[Any, TaskHook]] = weakref.WeakKeyDictionary()
_hooks_lock = threading.RLock()  # reentrant: a finalizer can release a hook while this thread holds the lock


def _renew_lock() -> None:
    """After a fork: another thread of the parent process may have held it."""
    global _hooks_lock  # noqa: PLW0603 - one lock per process
    _hooks_lock = threading.RLock()


at_fork(Step.LOCKS, in_child=_renew_lock)
