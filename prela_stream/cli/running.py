"""Runs the coroutine of a command: a short question, or a service until a signal stops it."""

import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskStatus

from prela_stream.app.debuglog import LOG_FORMAT, show_log_if_asked
from prela_stream.text import VisibleFormatter

T = TypeVar("T")
_REPORTED_ONCE: Final = frozenset({"urllib3", "clickhouse_connect"})
"""Libraries that warn at each attempt. What made the attempt fail is logged once by what asked for it."""


def ask(question: Callable[[], Awaitable[T]]) -> T:
    """Run a short coroutine."""
    return anyio.run(question)


def run_until_stopped(service: Callable[[], Awaitable[None]]) -> None:
    """Run a service until it ends, or SIGINT or SIGTERM comes; it then stops cleanly. A second signal ends it at once."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":  # there Ctrl-C arrives as KeyboardInterrupt, which cancels the service as well
                await tasks.start(_stop_on_signal, tasks.cancel_scope)  # a service that is ready can be stopped
            await service()
            tasks.cancel_scope.cancel()

    anyio.run(main)


async def _stop_on_signal(
    scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            break
    scope.cancel()


def log_to_stderr(formatter: logging.Formatter | None = None) -> None:
    """Show the log of a service on standard error; with `PRELA_DEBUG=1` in detail."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter or VisibleFormatter(LOG_FORMAT))
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    show_log_if_asked()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is shown. Libraries log a line for each request, partition or attempt."""
    library = record.name.partition(".")[0]
    if library == "prela_stream":
        return True
    return record.levelno >= (logging.ERROR if library in _REPORTED_ONCE else logging.WARNING)
