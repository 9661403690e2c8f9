"""A pipeline in a daemon thread with an event loop. `init()` uses it, because an agent may have no loop or several.

Items can be recorded before the thread runs. At exit the queue is flushed for a bounded time; nothing here can keep the process
alive.

Fork: before it, the parent's thread is parked and its transport is closed; after it, the thread runs again. A child copies every
lock and every open file as they are at that moment. If a SQLite connection were open, the child would assume locks that it does
not hold, and lose what it writes when the parent closes. If the thread were running, the child would inherit locks that stay
locked. The child starts with an empty queue, and with a new thread at its first item. The parent delivers what it had recorded.
"""

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its exit hook must be registered first: they run in reverse order
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable

import anyio
import anyio._backends._asyncio  # anyio imports it in the thread, and a fork during the import breaks the module in the child

from prela_stream.delivery.flush import FlushResult
from prela_stream.delivery.ledger import Ledger, LedgerSnapshot
from prela_stream.delivery.outbox import Outbox
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.delivery.timeouts import seconds
from prela_stream.errors import guard, logger
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.transport.base import Transport

_GRACE = 0.5
"""Seconds beyond its timeout that `stop` waits for the thread before it abandons the thread."""
_PARK = 1.0
"""Seconds that a fork waits for an attempt to end; with the closing of the transport at most twice that."""


class _Run:
    """One life of the background thread."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping: anyio.Event | None = None
        self.stop_asked = False
        self.parking = False
        self.timeout: float | None = None

    def ask_to_stop(self) -> None:
        """Make the thread end, also if its loop does not run yet."""
        self.stop_asked = True
        if self.loop is not None and self.stopping is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop closed after the check
                self.loop.call_soon_threadsafe(self.stopping.set)


class BackgroundPipeline:
    """A `Pipeline` in a background thread, started by `start()` or by the first item.

    Args:
        transport: Makes the transport. Called in the thread, because a transport belongs to one loop and one process.
        setup: Topic, options, resource.
    """

    def __init__(self, transport: Callable[[], Transport], setup: PipelineSetup) -> None:
        self._transport = transport
        self._setup = setup
        self._ledger = Ledger(setup.options)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._run = _Run()
        self._outbox: Outbox | None = None
        self._stopped = False
        self._forking = False
        self.record = self._ledger.queue.put
        """Takes an item; see `recorder.Recorder`. Valid in a forked child too."""
        self._ledger.queue.attach(self.start)
        self._ledger.queue.wake_at(1)
        _pipelines.add(self)

    def start(self) -> None:
        """Start the thread if it does not run. The first recorded item does this too."""
        with self._lock:
            if self._pid != os.getpid():
                self._after_fork()  # a fork that did not run Python's fork hooks
            if self._stopped or self._forking or self._run.thread is not None:
                return
            run = self._run
            run.thread = threading.Thread(target=self._run_thread, args=(run,), name="prela-stream", daemon=True)
            run.thread.start()
            _watch_main_thread()
            atexit.register(self._at_exit)
            finalize = getattr(
                sys.modules.get("multiprocessing.util"), "Finalize", None
            )  # absent while it is being imported
            if finalize is not None:
                # Children of multiprocessing end with os._exit: they run these finalizers, and no atexit functions.
                finalize(None, self._at_exit, exitpriority=0)

    def stop(self, timeout: float | None = None) -> LedgerSnapshot:
        """Record no more, deliver for up to `timeout` seconds (default: the option), count the rest, end the thread.

        If a hanging transport keeps the thread, it is abandoned after another half second; it cannot keep the process alive.
        Safe to call twice. Returns the final ledger.
        """
        timeout = seconds(timeout, self._setup.options.shutdown_timeout_s)
        with self._lock:
            run = self._run
            if self._stopped:
                return self._ledger.snapshot()
            self._stopped = True
        self._ledger.queue.close()
        if run.thread is not None and run.thread is not threading.current_thread():
            run.timeout = timeout
            run.ask_to_stop()
            run.thread.join(timeout + _GRACE)
        self._ledger.close()
        atexit.unregister(self._at_exit)
        snapshot = self._ledger.snapshot()
        if snapshot.dropped.shutdown or snapshot.unknown:
            logger.warning(
                "prela_stream: not every span was delivered before the process ended or tracing was shut down: %s. If the "
                "transport was reachable, raise pipeline.shutdown_timeout_s (it is %g s).",
                snapshot,
                timeout,
            )
        return snapshot

    def ledger(self) -> LedgerSnapshot:
        """Every recorded item of this process by its class, at this instant. Any thread."""
        return self._ledger.snapshot()

    def refuse(self, trace_id: bytes | None) -> None:
        """Count an item as recorded and dropped that could not be encoded. Any thread."""
        self._ledger.refuse(trace_id, "encode_error")

    def flush(self, timeout: float = 5.0) -> FlushResult:
        """As `aflush`, blocking the calling thread. In the pipeline's own thread it cannot wait and returns at once."""
        inside = self._run.thread is threading.current_thread()
        return self._ledger.flush(0.0 if inside else timeout)

    async def aflush(self, timeout: float = 5.0) -> FlushResult:
        """Wait up to `timeout` seconds until everything recorded before has a result. Any event loop."""
        return await self._ledger.aflush(timeout)

    def _run_thread(self, run: _Run) -> None:
        try:
            with guard("background"):
                anyio.run(self._serve, run)
        finally:
            if run.parking:
                with self._lock:
                    self._run = _Run()
                self._resume()
            else:
                has_failed = not run.stop_asked
                self._ledger.close()
                if has_failed:
                    logger.error(
                        "prela_stream: spans are no longer delivered, because of the error above; further ones are dropped and "
                        "counted: %s. Remove its cause, then call shutdown() and init() or restart the program.",
                        self._ledger.snapshot(),
                    )

    async def _serve(self, run: _Run) -> None:
        run.stopping = anyio.Event()
        run.loop = asyncio.get_running_loop()
        if run.stop_asked:  # between the start of the thread and the line above
            run.stopping.set()
        async with self._transport() as transport:
            pipeline = Pipeline(transport, self._setup, ledger=self._ledger, outbox=self._outbox)
            async with pipeline:
                await run.stopping.wait()
                if run.parking:
                    self._outbox = await pipeline.park(_PARK)
                else:
                    await pipeline.aclose(run.timeout)

    def _resume(self) -> None:
        """Start at the next item, or now if there is something to send."""
        queue = self._ledger.queue
        queue.attach(self.start)
        if not self._forking and (self._outbox or self._ledger.lost or self._ledger.flushing or not queue.wake_at(1)):
            self.start()

    def _before_fork(self) -> None:
        self._forking = True
        run = self._run
        if run.thread is not None and run.thread is not threading.current_thread() and not self._stopped:
            run.parking = True
            run.ask_to_stop()
            run.thread.join(2 * _PARK)

    def _after_fork_in_parent(self) -> None:
        self._forking = False
        if self._run.thread is None and not self._stopped:
            self._resume()

    def _at_exit(self) -> None:
        with guard("background.exit"):
            if self._setup.open_spans is not None and not self._stopped:
                self._setup.open_spans.cancel("exit")
            self.stop()

    def _at_main_end(self) -> None:
        """Stop if no other thread can record; if one can, deliver what is queued."""
        others = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        if not others:
            self._at_exit()
        elif not self._stopped:
            self._ledger.flush(self._setup.options.shutdown_timeout_s)

    def _after_fork(self) -> None:
        """In the child: forget the parent's thread, locks and items. Called before the child has a second thread."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._run = _Run()
        self._outbox = None
        self._forking = False
        self._ledger.reset()
        self._ledger.queue.attach(self.start)
        if self._stopped:
            self._ledger.queue.close()
        else:
            self._ledger.queue.wake_at(1)


_pipelines: "weakref.WeakSet[BackgroundPipeline]" = weakref.WeakSet()


def _before_fork() -> None:
    for pipeline in list(_pipelines):
        with guard("background.fork"):
            pipeline._before_fork()


def _after_fork_in_parent() -> None:
    for pipeline in list(_pipelines):
        with guard("background.fork"):
            pipeline._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for pipeline in list(_pipelines):
        with guard("background.fork"):
            pipeline._after_fork()


def _watch_main_thread() -> None:
    """Deliver when the main thread has ended, before the executors of `concurrent.futures` are closed.

    atexit functions run after that, when a transport that needs an executor, or a name resolution of asyncio, fails. The hook
    has no public name. Without it, delivery at exit depends on atexit alone.
    """
    global _watching  # noqa: PLW0603 - one hook a process
    register = getattr(threading, "_register_atexit", None)
    if _watching or register is None:
        return
    _watching = True
    with contextlib.suppress(RuntimeError):  # the interpreter is ending already
        register(_at_main_end)


_watching = False


def _at_main_end() -> None:
    for pipeline in list(_pipelines):
        with guard("background.exit"):
            pipeline._at_main_end()


at_fork(Step.BACKGROUND, before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
