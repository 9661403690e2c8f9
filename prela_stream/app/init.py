"""Turns tracing on in a process: `init()` with a pipeline in a background thread, `pipeline()` on the caller's event loop."""

from __future__ import annotations

import inspect
import os
import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from prela_stream._version import __version__
from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.app.arguments import Setup, read_init, read_pipeline
from prela_stream.app.debuglog import show_log_if_asked
from prela_stream.compat.prela import AncestorOptions
from prela_stream.config import Settings, load_settings
from prela_stream.delivery.background import BackgroundPipeline
from prela_stream.delivery.flush import FlushResult
from prela_stream.delivery.ledger import LedgerSnapshot
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.errors import guard, warn_once
from prela_stream.instrumentation.otel_bridge import follow_opentelemetry, global_provider, unfollow_opentelemetry
from prela_stream.instrumentation.registry import auto_instrument as switch_on
from prela_stream.instrumentation.registry import uninstrument
from prela_stream.model.span import Resource
from prela_stream.privacy.rules import Privacy, Redactable
from prela_stream.tracing.exporters import BaseExporter, ExporterRecorder, Tee
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.sampler import BaseSampler, ProbabilitySampler
from prela_stream.tracing.tracer import Tracer, get_tracer


class _Active(msgspec.Struct, kw_only=True):
    """What `init()` turned on."""

    setup: Setup
    pipeline: BackgroundPipeline
    exporter: ExporterRecorder | None


class _Process:
    """What is turned on in this process."""

    __slots__ = ("active", "blocks", "lock", "running")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.active: _Active | None = None
        self.running: BackgroundPipeline | Pipeline | None = None
        """The pipeline into which the global tracer records. Read without the lock: a forked child may find it locked."""
        self.blocks: list[tuple[Pipeline, Setup]] = []
        """Those of the open `pipeline()` blocks, the newest last."""


_process: Final = _Process()


def init(
    service_name: str | None = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    sampler: BaseSampler | None = None,
    sample_rate: float | None = None,
    capture_content: bool | None = None,
    redact: Callable[[Redactable], object] | None = None,
    auto_instrument: bool | Sequence[str] = True,
    resource_attributes: Mapping[str, Any] | None = None,
    config: str | os.PathLike[str] | None = None,
    exporter: BaseExporter | str | None = None,
    opentelemetry: bool | None = None,
    project_id: str | None = None,
    **ancestor: Unpack[AncestorOptions],
) -> Tracer:
    """Turn tracing on. With nothing set, spans go to SQLite files in `./.prela/`.

    A second call with the same arguments changes nothing. A call with others delivers what is queued and replaces the first.

    Args:
        service_name: Name of this program in its spans; default: its file name.
        directory: Folder of the local transport and the store; default `.prela`.
        sampler: Head sampler; it replaces `sample_rate`.
        sample_rate: Share of the traces that is recorded, in [0, 1]; default 1, which leaves the choice to the workers.
        capture_content: Whether prompts, answers and tool arguments are recorded; default true.
        redact: Called for each span when it ends, in the thread that ends it, to remove what must not be sent. If it fails,
            the span is sent without its content.
        auto_instrument: Trace the calls of supported libraries: all, none, or those named.
        resource_attributes: Further attributes of this process, on all its spans.
        config: A TOML file of settings; default: the file that `PRELA_CONFIG` names, else `prela.toml` if it exists.
        exporter: An object whose `export(spans)` gets each trace of this process too, after its root has ended.
        opentelemetry: Record the spans of OpenTelemetry in this process too. None: if the program sets up a global
            TracerProvider, before this call or after it. True: one is created if there is none. See `bridge_opentelemetry`.
        project_id: Becomes the resource attribute `prela.project.id`; default `PRELA_PROJECT_ID`.
        ancestor: Further arguments of the ancestor SDK. They have no effect; each is logged once as a warning.

    Returns:
        The global tracer, as `get_tracer()` returns it.

    Raises:
        ConfigurationError: An argument or a setting is wrong. After `init()`, nothing of this package raises into the
            application.
    """
    show_log_if_asked()
    given = {name: value for name, value in locals().items() if name in _ARGUMENTS}
    setup = read_init(given, ancestor, _ARGUMENTS)
    tracer = get_tracer()
    with _process.lock:
        if _process.active is not None and _process.active.setup == setup:
            return tracer
        if setup.opentelemetry is True:
            global_provider()
        _switch_off()
        own = None if setup.exporter is None else ExporterRecorder(setup.exporter)
        _process.running = running = BackgroundPipeline(partial(open_transport, setup.settings), _pipeline_setup(setup))
        _process.active = _Active(setup=setup, pipeline=running, exporter=own)
        tracer.configure(
            recorder=running if own is None else Tee(running, own), sampler=_sampler(setup), privacy=_privacy(setup)
        )
        if setup.opentelemetry is not False:
            follow_opentelemetry(tracer)
        if setup.instrument is not False:
            chosen = None if setup.instrument is True else setup.instrument
            content, opentelemetry = setup.settings.capture_content, setup.opentelemetry is not False
            switch_on(tracer, names=chosen, capture_content=content, opentelemetry=opentelemetry)
    if directory is None and config is None:
        _log_if_nothing_is_set(setup.settings)
    return tracer


_ARGUMENTS: Final = frozenset(inspect.signature(init).parameters) - {"ancestor"}


def flush(timeout: float = 5.0) -> FlushResult:
    """Wait up to `timeout` seconds until everything recorded before has a result; returns what was acknowledged.

    It is the running pipeline that is flushed, that of `init()` or of `pipeline()`. If tracing is off, it returns at once.
    """
    running = _process.running
    return _NOTHING if running is None else running.flush(timeout)


async def aflush(timeout: float = 5.0) -> FlushResult:
    """As `flush`, without blocking the event loop."""
    running = _process.running
    return _NOTHING if running is None else await running.aflush(timeout)


def ledger() -> LedgerSnapshot | None:
    """Every recorded item of the running pipeline by its result, at this instant; None if tracing is off."""
    running = _process.running
    return None if running is None else running.ledger()


_NOTHING: Final = FlushResult(acknowledged=0, dropped=0, unknown=0, pending=0)


def shutdown(timeout: float | None = None) -> LedgerSnapshot | None:
    """Turn off what `init()` turned on: deliver for up to `timeout` seconds (default: the setting), count the rest.

    Open spans end as CANCELLED, with the attribute `prela.cancelled_by`, and are delivered with the others. Patched libraries
    get their own methods back. Safe to call twice; `init()` may follow.

    Returns:
        The final ledger; None if `init()` was not called.
    """
    with _process.lock:
        if _process.active is not None:
            OpenSpans(get_tracer()).cancel("shutdown")
        return _switch_off(timeout)


def _switch_off(timeout: float | None = None) -> LedgerSnapshot | None:
    """As `shutdown()`, but spans stay open: they may end after another `init()`."""
    with _process.lock:
        active, _process.active = _process.active, None
        if active is None:
            return None
        _process.running = None
        with guard("shutdown.uninstrument"):
            uninstrument()
            unfollow_opentelemetry()
        get_tracer().configure(recorder=None, sampler=None)
        if active.exporter is not None:
            active.exporter.shutdown()
        try:
            return active.pipeline.stop(timeout)
        finally:  # not earlier: another thread may be recording a span under the privacy rules
            get_tracer().configure(privacy=Privacy())


@asynccontextmanager
async def pipeline(
    settings: Settings | None = None,
    *,
    sampler: BaseSampler | None = None,
    redact: Callable[[Redactable], object] | None = None,
) -> AsyncIterator[Pipeline]:
    """Trace on the event loop of the caller instead of in a background thread, for the block. It replaces `init()`.

    In another such block, that pipeline is used again afterwards.

    Args:
        settings: All settings; default: those that `load_settings()` finds.
        sampler: Head sampler; default: `settings.sample_rate`.
        redact: As of `init()`.

    Yields:
        The running pipeline. The global tracer records into it, and `flush()`, `aflush()` and `ledger()` use it.

    Raises:
        ConfigurationError: An argument or a setting is wrong.
    """
    show_log_if_asked()
    setup = read_pipeline(settings, sampler, redact)
    _switch_off()
    tracer = get_tracer()
    try:
        async with (
            open_transport(setup.settings) as transport,
            Pipeline(transport, _pipeline_setup(setup)) as running,
        ):
            _process.blocks.append((running, setup))
            _use_newest_block(tracer)
            try:
                yield running
            finally:
                _process.blocks = [block for block in _process.blocks if block[0] is not running]
                if _process.running is running:  # else another one was started in the block
                    _use_newest_block(tracer)
    finally:
        if _process.running is None:  # not earlier, see _switch_off()
            tracer.configure(privacy=Privacy())


def _use_newest_block(tracer: Tracer) -> None:
    """Record into the pipeline of the newest open block; if there is none, turn tracing off."""
    if _process.blocks:
        _process.running, setup = _process.blocks[-1]
        tracer.configure(recorder=_process.running, sampler=_sampler(setup), privacy=_privacy(setup))
        return
    OpenSpans(tracer).cancel("shutdown")
    tracer.configure(recorder=None, sampler=None)
    _process.running = None


def _pipeline_setup(setup: Setup) -> PipelineSetup:
    settings = setup.settings
    return PipelineSetup(
        topics=settings.topics,
        options=settings.pipeline,
        resource=partial(_resource, setup),
        prepare=partial(_prepare, settings),
        open_spans=OpenSpans(get_tracer()),
    )


async def _prepare(settings: Settings, transport: Any) -> None:
    if settings.transport == "local":
        await make_topics(settings, transport)


def _sampler(setup: Setup) -> BaseSampler | None:
    if setup.sampler is not None:
        return setup.sampler
    rate = setup.settings.sample_rate
    return None if rate >= 1.0 else ProbabilitySampler(rate)


def _privacy(setup: Setup) -> Privacy:
    settings = setup.settings
    return Privacy(
        capture_content=settings.capture_content,
        content_attributes=settings.privacy.content_attributes,
        withhold=settings.privacy.withhold,
        redact=setup.redact,
    )


def _resource(setup: Setup) -> Resource:
    program, host = "", ""
    with guard("resource"):  # an embedded interpreter may have no argv, and a host name may not be text
        program = Path((getattr(sys, "argv", None) or [""])[0]).stem
        host = socket.gethostname()
    return Resource(
        service_name=setup.settings.service_name or program or "python",
        sdk_version=__version__,
        host=host,
        pid=os.getpid(),
        instance_id=secrets.token_hex(8),
        heartbeat_ms=setup.settings.pipeline.heartbeat_ms,
        attributes=setup.resource_attributes,
    )


def _log_if_nothing_is_set(settings: Settings) -> None:
    named = {"service_name": settings.service_name} if settings.service_name else {}
    if settings == load_settings(env={}, overrides=named):
        # A warning, because Python shows nothing less without a logging configuration, and a first program has none.
        warn_once(
            f"no setting is given, so spans go to {Path(settings.local.path).absolute()}; `prela-stream dev` in this folder "
            "decides and stores them"
        )
