"""Switches tracing on in a process: `init()` with a pipeline in a background thread, `pipeline()` on the caller's own loop."""

from __future__ import annotations

import inspect
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from prela_stream._version import __version__
from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.compat.prela import (
    PROJECT_ID,
    AncestorOptions,
    checked_exporter,
    is_off,
    tell_what_has_no_effect,
)
from prela_stream.config import Settings, load_settings
from prela_stream.delivery.background import BackgroundPipeline
from prela_stream.delivery.flush import FlushResult
from prela_stream.delivery.ledger import LedgerSnapshot
from prela_stream.delivery.pipeline import Pipeline
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.errors import ConfigurationError, guard
from prela_stream.instrumentation.registry import auto_instrument as switch_on
from prela_stream.instrumentation.registry import checked_names, uninstrument
from prela_stream.model.plain import plain, safe_text
from prela_stream.model.span import Resource
from prela_stream.privacy.rules import Privacy, Redactable
from prela_stream.tracing.exporters import BaseExporter, ExporterRecorder, Tee
from prela_stream.tracing.open_spans import OpenSpans
from prela_stream.tracing.sampler import BaseSampler, ProbabilitySampler
from prela_stream.tracing.tracer import Tracer, get_tracer

logger = logging.getLogger("prela_stream")


class _Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What `init()` was asked for; a second call with the same changes nothing."""

    settings: Settings
    sampler: BaseSampler | None
    instrument: bool | tuple[str, ...]
    resource_attributes: dict[str, Any]
    redact: Callable[[Redactable], object] | None = None
    exporter: Any = None


class _Active(msgspec.Struct, kw_only=True):
    setup: _Setup
    host: BackgroundPipeline
    exporter: ExporterRecorder | None


_lock = threading.RLock()
_active: _Active | None = None


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
    project_id: str | None = None,
    **ancestor: Unpack[AncestorOptions],
) -> Tracer:
    """Switch tracing on. With nothing set, spans go to SQLite files in `./.prela/`.

    Calling it again with the same arguments changes nothing; with others it delivers what is queued and starts anew.

    Args:
        service_name: What this program calls itself in its spans; default: its file name.
        directory: Folder of the local transport and the store; default `.prela`.
        sampler: Head sampler; it wins over `sample_rate`.
        sample_rate: Share of traces to record at all, in [0, 1]; default 1: leave the choice to the workers.
        capture_content: Whether prompts, answers and tool arguments are recorded; default true.
        redact: Called for each span when it ends, in the thread that ends it, to remove from it what must not be sent. If it
            fails, the span is sent without its content.
        auto_instrument: Trace the calls of supported libraries: all, none, or those named.
        resource_attributes: Further facts that all spans of this process share.
        config: A TOML file of settings; default `PRELA_CONFIG`, else `prela.toml` if there is one.
        exporter: An object whose `export(spans)` gets each trace of this process as well, when its root has ended.
        project_id: Becomes the resource attribute `prela.project.id`; default `PRELA_PROJECT_ID`.
        ancestor: What else the ancestor SDK took here. It has no effect, which is logged once.

    Returns:
        The global tracer, as `get_tracer()` gives it.

    Raises:
        ConfigurationError: a setting is wrong. After that nothing of this package raises into the application.
    """
    global _active  # noqa: PLW0603 - the one pipeline of the process
    with _reading_arguments():
        tell_what_has_no_effect(ancestor, exporter, _OWN_ARGUMENTS)
        project_id = project_id or os.environ.get("PRELA_PROJECT_ID")
        resource = {**({PROJECT_ID: project_id} if project_id else {}), **(resource_attributes or {})}
        checked_sampler, checked_redact = _checked_sampler(sampler), _checked_redact(redact)
        own_exporter = checked_exporter(exporter)
        names = auto_instrument if isinstance(auto_instrument, bool) else checked_names(auto_instrument)
        where = None if directory is None else os.fspath(directory)
    if not is_off("PRELA_DEBUG") and os.environ.get("PRELA_DEBUG"):
        logger.setLevel(logging.DEBUG)
    if is_off("PRELA_AUTO_INSTRUMENT"):
        names = False
    given = {
        "service_name": service_name,
        "directory": where,
        "sample_rate": sample_rate,
        "capture_content": capture_content,
    }
    settings = load_settings(
        None if config is None else Path(config),
        overrides={key: value for key, value in given.items() if value is not None},
    )
    setup = _Setup(
        settings=settings,
        sampler=checked_sampler,
        instrument=names,
        resource_attributes=plain(resource),
        redact=checked_redact,
        exporter=own_exporter,
    )
    tracer = get_tracer()
    with _lock:
        if _active is not None and _active.setup == setup:
            return tracer
        _switch_off()
        host = BackgroundPipeline(partial(open_transport, settings), _pipeline_setup(setup))
        own = None if setup.exporter is None else ExporterRecorder(setup.exporter)
        _active = _Active(setup=setup, host=host, exporter=own)
        tracer.configure(
            recorder=host if own is None else Tee(host, own), sampler=_sampler(setup), privacy=_privacy(setup)
        )
        if setup.instrument is not False:
            chosen = None if setup.instrument is True else setup.instrument
            switch_on(tracer, names=chosen, capture_content=settings.capture_content)
    if directory is None and config is None and settings == load_settings(env={}, overrides=_named(settings)):
        logger.info(
            "prela_stream: nothing is configured; spans go to %s. `prela-stream dev` samples and stores them",
            settings.local.path,
        )
    return tracer


_OWN_ARGUMENTS: Final = frozenset(inspect.signature(init).parameters) - {"ancestor"}


def flush(timeout: float = 5.0) -> FlushResult:
    """Wait up to `timeout` seconds until everything recorded before is settled; says what was really acknowledged.

    Before `init()` there is nothing to wait for.
    """
    active = _active
    return _nothing() if active is None else active.host.flush(timeout)


async def aflush(timeout: float = 5.0) -> FlushResult:
    """As `flush`, without blocking the event loop."""
    active = _active
    return _nothing() if active is None else await active.host.aflush(timeout)


def shutdown(timeout: float | None = None) -> LedgerSnapshot | None:
    """Switch tracing off: deliver for up to `timeout` seconds (default: the option), count the rest, end the thread.

    Spans that are open are ended as CANCELLED, with the attribute `prela.cancelled_by`, and delivered with the others.
    Libraries get their own methods back. Safe to call twice; `init()` may follow.

    Returns:
        The final ledger; None if tracing was not on.
    """
    with _lock:
        if _active is not None:
            OpenSpans(get_tracer()).cancel("shutdown")
        return _switch_off(timeout)


def _switch_off(timeout: float | None = None) -> LedgerSnapshot | None:
    """As `shutdown()`, but open spans stay open: they may end into what is switched on next."""
    global _active
    with _lock:
        active, _active = _active, None
        if active is None:
            return None
        with guard("shutdown.uninstrument"):
            uninstrument()
        get_tracer().configure(recorder=None, sampler=None)
        if active.exporter is not None:
            active.exporter.shutdown()
        try:
            return active.host.stop(timeout)
        finally:  # not before: a span that ends at this moment in another thread may have the recorder in hand
            get_tracer().configure(privacy=Privacy())


def ledger() -> LedgerSnapshot | None:
    """Every recorded item of this process by what became of it, at this instant; None if tracing is not on."""
    active = _active
    return None if active is None else active.host.ledger()


@asynccontextmanager
async def pipeline(
    settings: Settings | None = None,
    *,
    sampler: BaseSampler | None = None,
    redact: Callable[[Redactable], object] | None = None,
) -> AsyncIterator[Pipeline]:
    """Tracing on the caller's own event loop instead of a background thread, for the length of the block.

    Args:
        settings: Everything; default: as `load_settings()` finds it.
        sampler: Head sampler; default: by `settings.sample_rate`.
        redact: As of `init()`.

    Yields:
        The running pipeline; the global tracer records into it.
    """
    settings = load_settings() if settings is None else _checked_settings(settings)
    setup = _Setup(
        settings=settings,
        sampler=_checked_sampler(sampler),
        instrument=False,
        resource_attributes={},
        redact=_checked_redact(redact),
    )
    _switch_off()
    tracer = get_tracer()
    try:
        async with (
            open_transport(settings) as transport,
            Pipeline(transport, _pipeline_setup(setup)) as running,
        ):
            tracer.configure(recorder=running, sampler=_sampler(setup), privacy=_privacy(setup))
            try:
                yield running
            finally:
                OpenSpans(tracer).cancel("shutdown")
                tracer.configure(recorder=None, sampler=None)
    finally:  # see shutdown()
        tracer.configure(privacy=Privacy())


async def _prepare(settings: Settings, transport: Any) -> None:
    if settings.transport == "local":
        await make_topics(settings, transport)


def _sampler(setup: _Setup) -> BaseSampler | None:
    if setup.sampler is not None:
        return setup.sampler
    rate = setup.settings.sample_rate
    return None if rate >= 1.0 else ProbabilitySampler(rate)


@contextmanager
def _reading_arguments() -> Iterator[None]:
    """Whatever an argument's own methods raise when it is looked at is a mistake in the argument."""
    try:
        yield
    except (ConfigurationError, TypeError):
        raise
    except Exception as error:
        msg = f"an argument of init() cannot be read: {type(error).__name__}"
        raise ConfigurationError(msg) from error


def _checked_settings(settings: object) -> Settings:
    if isinstance(settings, Settings):
        return settings
    msg = f"pipeline(settings=…) takes what load_settings() gives, got {safe_text(settings)}"
    raise ConfigurationError(msg)


def _checked_sampler(sampler: object) -> BaseSampler | None:
    if sampler is None or isinstance(sampler, BaseSampler):
        return sampler
    msg = f"init(sampler=…) takes a head sampler, for instance ProbabilitySampler(0.1), got {safe_text(sampler)}"
    raise ConfigurationError(msg)


def _checked_redact(redact: Any) -> Callable[[Redactable], object] | None:
    if redact is None or (callable(redact) and not inspect.iscoroutinefunction(redact)):
        return redact  # type: ignore[no-any-return]  # callable is all that can be known
    msg = f"redact is a plain function of one argument, a Redactable, that changes it in place; got {safe_text(redact)}"
    raise ConfigurationError(msg)


def _privacy(setup: _Setup) -> Privacy:
    settings = setup.settings
    return Privacy(
        capture_content=settings.capture_content,
        content_attributes=settings.privacy.content_attributes,
        withhold=settings.privacy.withhold,
        redact=setup.redact,
    )


def _pipeline_setup(setup: _Setup) -> PipelineSetup:
    settings = setup.settings
    return PipelineSetup(
        topics=settings.topics,
        options=settings.pipeline,
        resource=partial(_resource, setup),
        prepare=partial(_prepare, settings),
        open_spans=OpenSpans(get_tracer()),
    )


def _resource(setup: _Setup) -> Resource:
    return Resource(
        service_name=setup.settings.service_name or Path(sys.argv[0] or "python").stem or "python",
        sdk_version=__version__,
        host=socket.gethostname(),
        pid=os.getpid(),
        instance_id=secrets.token_hex(8),
        heartbeat_ms=setup.settings.pipeline.heartbeat_ms,
        attributes=setup.resource_attributes,
    )


def _named(settings: Settings) -> dict[str, Any]:
    return {"service_name": settings.service_name} if settings.service_name else {}


def _nothing() -> FlushResult:
    return FlushResult(acknowledged=0, dropped=0, unknown=0, pending=0)
