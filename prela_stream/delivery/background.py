"""A pipeline on an event loop of its own, in a daemon thread: what `init()` uses, because an agent may have no loop or many.

Recording works from the first moment, before the thread runs. At exit the queue is flushed for a bounded time; nothing here can
keep the process alive.

Fork: before it, the parent's thread is parked and its transport closed; afterwards it goes on. A child copies every lock and
every open file as they are at that moment: with a SQLite connection open it would believe in locks that it does not hold, and
lose what it writes when the parent closes; with a thread at work it would inherit locks that nobody opens. The child starts
with an empty queue and, with its first item, a thread of its own: the parent still owns and delivers what it had recorded.
"""

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - its hook has to be there first: they run in reverse order
import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable

import anyio
import anyio._backends._asyncio  # anyio would load it in the thread, and a fork meanwhile would leave the child half a module

from prela_stream.delivery.ledger import FlushResult, Ledger, LedgerSnapshot
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.outbox import Outbox
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.errors import guard
from prela_stream.model.span import Resource
from prela_stream.tracing.forking import Step, at_fork
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.transport.base import Transport
from prela_stream.transport.options import TopicOptions

logger = logging.getLogger("prela_stream")

_GRACE = 0.5
"""Seconds beyond its timeout that `stop` waits for the thread before it leaves it behind."""
_PARK = 1.0
"""Seconds that a fork waits for a send to end; with the closing of the transport at most twice that."""


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
        """Have the thread end; it need not have come to its loop yet."""
        self.stop_asked = True
        if self.loop is not None and self.stopping is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it closes at this very moment
                self.loop.call_soon_threadsafe(self.stopping.set)


class BackgroundPipeline:
    """A `Pipeline` in a background thread, started by `start()` or by the first item.

    Args:
        transport: Makes the transport; called in the thread, once a process, for a transport belongs to one loop and one process.
        topics: Name and sizes of the `spans` topic.
        options: Bounds, batching, deadlines.
        resource: What all spans of a process share, or a function that makes it: a forked child has another pid.
        prepare: See `Pipeline`.
        spans: Those to send heartbeats for, and to end at the exit of the process; None: neither is done.
    """

    def __init__(
        self,
        transport: Callable[[], Transport],
        topics: TopicOptions,
        options: PipelineOptions,
        resource: Resource | Callable[[], Resource],
        *,
        prepare: Callable[[Transport], Awaitable[object]] | None = None,
        spans: OpenSpans | None = None,
    ) -> None:
        self._spans = spans
        self._transport = transport
        self._topics = topics
        self._options = options
        self._resource = resource
        self._prepare = prepare
        self._ledger = Ledger(options)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._run = _Run()
        self._outbox: Outbox | None = None
        self._stopped = False
        self._forking = False
        self.record = self._ledger.queue.put
        """Takes an item; see `recorder.Recorder`. It stays valid in a forked child."""
        self._ledger.queue.attach(self.start)
        self._ledger.queue.arm(1)
        _hosts.add(self)

    def start(self) -> None:
        """Start the thread if it does not run. Recording does this by itself."""
        with self._lock:
            if self._pid != os.getpid():
                self._after_fork()  # a fork that went past Python's own hooks
            if self._stopped or self._forking or self._run.thread is not None:
                return
            run = self._run
            run.thread = threading.Thread(target=self._host, args=(run,), name="prela-stream", daemon=True)
            run.thread.start()
            _watch_main_thread()
            atexit.register(self._at_exit)
            if (processes := sys.modules.get("multiprocessing.util")) is not None:
                # The children of multiprocessing leave by os._exit and run these instead of what atexit holds.
                processes.Finalize(None, self._at_exit, exitpriority=0)

    def stop(self, timeout: float | None = None) -> LedgerSnapshot:
        """Record no more, deliver for up to `timeout` seconds (default: the option), count the rest, end the thread.

        A thread that a hanging transport keeps is left behind after a grace of half a second; it cannot keep the process.
        Safe to call twice. Returns the final ledger.
        """
        timeout = self._options.shutdown_timeout_s if timeout is None else timeout
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
            logger.warning("prela_stream: not every item was delivered before the end: %s", snapshot)
        return snapshot

    def ledger(self) -> LedgerSnapshot:
        """Every recorded item of this process by what became of it, at this instant. Any thread."""
        return self._ledger.snapshot()

    def refuse(self, trace_id: bytes | None) -> None:
        """Count an item that was to be recorded but could not be encoded. Any thread."""
        self._ledger.refuse(trace_id, "encode_error")

    def flush(self, timeout: float = 5.0) -> FlushResult:
        """As `aflush`, blocking the calling thread. In the pipeline's own thread it cannot wait and returns at once."""
        inside = self._run.thread is threading.current_thread()
        return self._ledger.flush(0.0 if inside else timeout)

    async def aflush(self, timeout: float = 5.0) -> FlushResult:
        """Wait up to `timeout` seconds until everything recorded before is settled. Any event loop."""
        return await self._ledger.aflush(timeout)

    def _host(self, run: _Run) -> None:
        try:
            with guard("host"):
                anyio.run(self._serve, run)
        finally:
            if run.parking:
                with self._lock:
                    self._run = _Run()
                self._go_on()
            else:
                self._ledger.close()

    async def _serve(self, run: _Run) -> None:
        run.stopping = anyio.Event()
        run.loop = asyncio.get_running_loop()
        if run.stop_asked:  # asked between the start of the thread and the line above
            run.stopping.set()
        resource = self._resource() if callable(self._resource) else self._resource
        async with self._transport() as transport:
            pipeline = Pipeline(
                transport,
                self._topics,
                self._options,
                resource,
                ledger=self._ledger,
                outbox=self._outbox,
                prepare=self._prepare,
                spans=self._spans,
            )
            async with pipeline:
                await run.stopping.wait()
                if run.parking:
                    self._outbox = await pipeline.park(_PARK)
                else:
                    await pipeline.aclose(run.timeout)

    def _go_on(self) -> None:
        """Be ready for the next item, or start at once if something is left to send."""
        queue = self._ledger.queue
        queue.attach(self.start)
        if not self._forking and (self._outbox or self._ledger.lost or self._ledger.flushing or not queue.arm(1)):
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
            self._go_on()

    def _at_exit(self) -> None:
        with guard("host.exit"):
            if self._spans is not None and not self._stopped:
                self._spans.cancel("exit")
            self.stop()

    def _at_main_end(self) -> None:
        """Stop if nobody is left to record; deliver what there is if other threads go on."""
        others = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        if not others:
            self._at_exit()
        elif not self._stopped:
            self._ledger.flush(self._options.shutdown_timeout_s)

    def _after_fork(self) -> None:
        """In the child: forget the parent's thread, locks and items. Runs before the child has a second thread."""
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
            self._ledger.queue.arm(1)


_hosts: "weakref.WeakSet[BackgroundPipeline]" = weakref.WeakSet()


def _before_fork() -> None:
    for host in list(_hosts):
        with guard("host.fork"):
            host._before_fork()


def _after_fork_in_parent() -> None:
    for host in list(_hosts):
        with guard("host.fork"):
            host._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for host in list(_hosts):
        with guard("host.fork"):
            host._after_fork()


def _watch_main_thread() -> None:
    """Have the hosts told when the main thread has ended, before the executors of `concurrent.futures` are closed.

    atexit comes after that, when a transport that works through an executor, or a name look-up of asyncio, can do nothing any
    more. The hook has no public name; without it atexit alone has to do.
    """
    global _watching  # noqa: PLW0603 - the interpreter keeps the hook once for the process
    register = getattr(threading, "_register_atexit", None)
    if _watching or register is None:
        return
    _watching = True
    with contextlib.suppress(RuntimeError):  # the interpreter is ending already
        register(_at_main_end)


_watching = False


def _at_main_end() -> None:
    for host in list(_hosts):
        with guard("host.exit"):
            host._at_main_end()


at_fork(Step.BACKGROUND, before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
