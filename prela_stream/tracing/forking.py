"""What happens at `os.fork()`: every handler of the agent process, in one fixed order.

A module registers its handlers under a `Step`. `Step` fixes the order, so the order in which modules are imported does not
matter. Before the fork the steps run from last to first; after it, in the parent and in the child, from first to last.
"""

import enum
import os
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from prela_stream import telemetry
from prela_stream.errors import guard


class Step(enum.IntEnum):
    """The order of the handlers: a later step may use what the earlier ones have repaired."""

    METRICS = 1
    """The child sets every metric to zero, with new locks."""
    IDS = 2
    """The child drops the random ids that it shares with its parent."""
    LOCKS = 3
    """The child replaces locks that another thread of the parent may have held."""
    CURRENT_SPAN = 4
    """The child goes on below the current span, and abandons the spans that the parent has to end."""
    OPEN_SPANS = 5
    """The child forgets which spans were open before the fork."""
    EXPORTERS = 6
    """The child forgets the spans that an exporter of the parent has yet to get."""
    PIPELINE = 7
    """The child closes the pipelines of event loops that do not run in it."""
    BACKGROUND = 8
    """Background threads stop before the fork and restart after it in the parent; the child starts with an empty queue."""


class Handlers(NamedTuple):
    """What one module does at a fork. Each function takes no argument; an error in one is logged and the rest still run."""

    before: Callable[[], object] | None = None
    in_parent: Callable[[], object] | None = None
    in_child: Callable[[], object] | None = None


_handlers: Final[dict[Step, list[Handlers]]] = {step: [] for step in Step}


def at_fork(
    step: Step,
    *,
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
    in_child: Callable[[], object] | None = None,
) -> None:
    """Run these functions at every fork from now on, at the place of `step`; those of one step in the order of this call."""
    _handlers[step].append(Handlers(before, in_parent, in_child))


def _run(functions: Iterable[Callable[[], object] | None]) -> None:
    for function in functions:
        if function is not None:
            with guard("fork"):
                function()


def _in_order() -> list[Handlers]:
    return [handlers for step in Step for handlers in _handlers[step]]


def _before() -> None:
    _run(handlers.before for handlers in reversed(_in_order()))


def _in_parent() -> None:
    _run(handlers.in_parent for handlers in _in_order())


def _in_child() -> None:
    _run(handlers.in_child for handlers in _in_order())


at_fork(Step.METRICS, in_child=telemetry.restart)  # telemetry is in a layer below and cannot register itself

if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
