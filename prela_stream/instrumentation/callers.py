"""Which libraries record the model calls that they make, so that the instrumentor of the client below them must not.

A framework calls the same client as the application does, and its instrumentation makes a span of the call. The two spans cannot
be recognised as one afterwards: many frameworks set no current span and no response id. But while a framework makes the call, a
frame of its model classes is on the stack, in each task that it starts for the call as well.
"""

import sys
from collections.abc import Sequence
from typing import Final

_claimed: Final[dict[str, tuple[str, ...]]] = {}
"""By the name of the library."""
_MOST_FRAMES: Final = 200


def claim(library: str, modules: Sequence[str]) -> None:
    """Model calls that these modules make are recorded by the instrumentation of `library` from now on."""
    if modules:
        _claimed[library] = tuple(modules)


def release(library: str) -> None:
    """Undo `claim`. Without effect if nothing is claimed."""
    _claimed.pop(library, None)


def is_claimed() -> bool:
    """Whether the code that runs now was called by such a module."""
    if not _claimed:
        return False
    modules = [module for each in list(_claimed.values()) for module in each]
    below = tuple(f"{module}." for module in modules)
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        name = frame.f_globals.get("__name__", "")
        if isinstance(name, str) and (name in modules or name.startswith(below)):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
