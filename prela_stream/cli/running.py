"""Runs the coroutine of a command: a short question, or a service until a signal stops it."""

import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from prela_stream.app.debuglog import LOG_FORMAT, show_log_if_asked
from prela_stream.text import VisibleFormatter

T = TypeVar("T")


def ask(question: Callable[[], Awaitable[T]]) -> T:
    """Run a short coroutine."""
    return anyio.run(question)


def run_until_stopped(service: Callable[[], Awaitable[None]]) -> None:
    """Run a service until it ends, or SIGINT or SIGTERM comes; it then stops cleanly. A second signal ends it at once."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":  # there Ctrl-C arrives as KeyboardInterrupt, which cancels the service as well
                tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
            await service()
            tasks.cancel_scope.cancel()

    anyio.run(main)


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            break
    scope.cancel()


def log_to_stderr() -> None:
    """Show the log of a service on standard error; with `PRELA_DEBUG=1` in detail."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # it logs several lines for each partition
    show_log_if_asked()
