"""Checks an installation: versions, policies, files, the connection to the log, the log.

Nothing is written unless `write` is set: then a tick, which workers ignore, is written to `spans` and read back.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from prela_stream.app.adapters import NOT_USABLE, group_of, load_policy_set, open_transport, unusable_client
from prela_stream.app.otlp_doctor import otlp_finding
from prela_stream.errors import ConfigurationError, PrelaError
from prela_stream.sinks.registry import SINK_TYPES, load
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.findings import (
    CLOCK_S,
    ROLES,
    Finding,
    Role,
    mistake,
    ok,
    skipped,
    skipped_after,
    unknown,
    wrong,
    wrong_clock,
)

if TYPE_CHECKING:
    from prela_stream.config import Settings
    from prela_stream.sinks.settings import SinkSettings
    from prela_stream.transport.base import LogRecord, Transport

_PACKAGE: Final = "prela-stream"
_LEAST: Final = re.compile(r"^([\w.-]+)\s*>=\s*([\d.]+)$")
_READ_BACK_S: Final = 20.0


async def diagnose(
    settings: Settings,
    *,
    roles: Sequence[Role] = ROLES,
    write: bool = False,
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> AsyncIterator[Finding]:
    """Each check as it is done. Checks that need an earlier one that failed are reported as skipped.

    Args:
        settings: What to check.
        roles: The roles whose permissions on the cluster are checked.
        write: Whether to write a tick and read it back, which also compares the clocks.
        clock: The time of this machine, ms since the epoch.
    """
    async for finding in _here(settings, roles):
        yield finding
    failed = ""
    clock_pending = False
    async for finding in _transport(settings, roles, clock()):
        if write and (finding.check, finding.state) == ("clock", "unknown"):
            clock_pending = True  # what is written will show it
            continue
        yield finding
        failed = failed or (finding.check if finding.state == "wrong" and finding.check != "clock" else "")
    if "worker" in roles:
        yield skipped_after("retention", f"{failed} check") if failed else await _retention(settings)
        if not failed and (ahead := await _stream_time(settings, clock())) is not None:
            yield ahead
    if write and failed:
        yield skipped_after("write and read", f"{failed} check")
    elif write:
        async for finding in _written(settings, clock):
            clock_pending = clock_pending and finding.check != "clock"
            yield finding
    if clock_pending:
        yield skipped_after("clock", "write and read check")


def _transport(settings: Settings, roles: Sequence[Role], now_ms: int) -> AsyncIterator[Finding]:
    if settings.transport == "local":
        from prela_stream.transport.local.doctor import findings

        return findings(settings.local, settings.topics)
    try:
        from prela_stream.transport.kafka.doctor.acls import ServiceGroups
        from prela_stream.transport.kafka.doctor.checks import KafkaDoctor
    except NOT_USABLE as error:
        return _only(mistake("aiokafka", unusable_client(error)))
    sinks = tuple(group_of(settings, sink.group) for sink in settings.sink)
    groups = ServiceGroups(worker=group_of(settings, settings.worker.group), sinks=sinks)
    return KafkaDoctor(settings.kafka, settings.topics, groups, roles, now_ms).findings()


async def _only(finding: Finding) -> AsyncIterator[Finding]:
    yield finding


async def _here(settings: Settings, roles: Sequence[Role]) -> AsyncIterator[Finding]:
    """What needs no connection to the log."""
    yield _installed()
    if "agent" in roles:
        yield _libraries()
    yield _policies(settings)
    if "worker" in roles:
        yield _core(settings)
    yield await otlp_finding(settings.otlp)
    for sink in settings.sink:
        yield await _sink(sink)


def _installed() -> Finding:
    import platform
    from importlib import metadata

    versions = {"python": platform.python_version()}
    old = []
    try:
        requirements = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return unknown("installed", f"{_PACKAGE} runs from its source, without the data of an installation")
    for line in requirements:
        if (found := _LEAST.match(line)) is None:
            continue  # of an extra
        name, least = found.groups()
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            old.append(f"no {name}, which should be {least} or newer")
            continue
        if _numbers(versions[name]) < _numbers(least):
            old.append(f"{name} {versions[name]}, which should be {least} or newer")
    if old:
        todo = f"pip install --upgrade {_PACKAGE}"
        return wrong("installed", expected="the versions that this release requires", came="; ".join(old), todo=todo)
    return ok("installed", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _libraries() -> Finding:
    from prela_stream.instrumentation.otel_libraries import libraries_installed, version_of
    from prela_stream.instrumentation.registry import INSTRUMENTORS

    traced = [name for name in INSTRUMENTORS if version_of(name)]
    lacking: dict[str, str] = {}
    for name, library, missing in libraries_installed():
        if not missing:
            traced.append(f"{name} by {library.package or 'its own spans'}")
        elif not library.is_optional:
            lacking[name] = " ".join(missing)
    text = (
        f"calls are traced of: {', '.join(traced)}" if traced else "no library is installed whose calls can be traced"
    )
    if lacking:
        text += "; not traced: " + ", ".join(f"{name} (pip install {packages})" for name, packages in lacking.items())
    return ok("libraries", text)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _policies(settings: Settings) -> Finding:
    try:
        found = load_policy_set(settings)
    except ConfigurationError as error:
        return mistake("policies", str(error))
    return ok("policies", f"{len(found.policies)} of {found.source}, version {found.version}")


def _core(settings: Settings) -> Finding:
    from prela_stream.assembly.selection import choose_core

    try:
        found = choose_core(settings.worker.core)
    except ConfigurationError as error:
        return mistake("core", str(error))
    return ok("core", f"{found}: {found.reason}")


async def _sink(sink: SinkSettings) -> Finding:
    from prela_stream.transport.local.doctor import check_file

    check = f"sink {sink.name}"
    kind = SINK_TYPES[sink.type]
    if kind.check is not None:
        found: Finding = await anyio.to_thread.run_sync(load(kind.check), check, sink.options)
        return found
    if kind.reader is None or kind.path is None:
        return ok(check, f"type {sink.type}; it opens its destination when it runs")
    path = Path(sink.destination)
    found = check_file(path, check, f"path of the sink {sink.name}")
    if found.state == "ok" and await anyio.Path(path).exists():
        try:
            async with load(kind.reader)(sink.options) as opened:
                await opened.totals()
        except PrelaError as error:
            return mistake(check, str(error))
    return found


async def _retention(settings: Settings) -> Finding:
    from prela_stream.transport.topics import check_retention, topic_names

    ages = {"max_age_ms": settings.assembly.max_age_ms, "late_window_ms": settings.assembly.late_window_ms}
    try:
        async with open_transport(settings) as transport:
            existing = await transport.topics(topic_names(settings.topics))
    except PrelaError as error:
        return unknown("retention", str(error))
    if not existing:
        return skipped("retention", "the topics do not exist yet")
    if lines := check_retention(settings.topics, existing, **ages):
        return mistake("retention", "\n".join(lines))
    return ok("retention", "the topics keep records for as long as workers may have to read them again")


async def _stream_time(settings: Settings, now_ms: int) -> Finding | None:
    """A finding if the stream time of a partition is ahead of this machine; None if it is not, or if it cannot be read."""
    from prela_stream.worker.checkpoint import CheckpointError, read_checkpoint

    spans, group = settings.topics.spans, group_of(settings, settings.worker.group)
    ahead: list[str] = []
    try:
        async with open_transport(settings) as transport:
            found = (await transport.topics([spans])).get(spans)
            for number in range(0 if found is None else found.partitions):
                source = TopicPartition(spans, number)
                if (committed := await transport.committed(group, source)) is not None:
                    checkpoint = read_checkpoint(
                        committed.metadata, partitions=settings.topics.partitions, where=str(source)
                    )
                    if (error_ms := checkpoint.clock_ms - now_ms) > settings.assembly.max_jump_ms:
                        ahead.append(f"{source} by {error_ms / 1000:,.0f} s")
    except CheckpointError as error:
        return mistake("stream time", str(error))
    except PrelaError:
        return None  # the checks of the connection and of the rights report it
    if not ahead:
        return None
    todo = (
        "check the clocks of the brokers. Decisions are not delayed, but their times are too large until the clocks have "
        "caught up"
    )
    came = f"partitions that are ahead: {', '.join(ahead)}"
    return wrong("stream time", expected="a stream time that is not ahead of this machine", came=came, todo=todo)


async def _written(settings: Settings, clock: Callable[[], int]) -> AsyncIterator[Finding]:
    from prela_stream.worker.ticks import tick_record

    partition = TopicPartition(settings.topics.spans, 0)
    async with open_transport(settings) as transport:
        if partition.topic not in await transport.topics([partition.topic]):
            yield skipped("write and read", "the topics do not exist yet")
            return
        try:
            before = clock()
            async with await transport.producer() as producer:
                offset = await producer.send(partition, [tick_record()])
            after = clock()
        except PrelaError as error:
            yield mistake("write and read", str(error))
            return
        try:
            stored = await _read_back(transport, partition, offset)
        except PrelaError as error:
            yield unknown(
                "write and read", f"a record was written in {after - before:,} ms; it cannot be read: {error}"
            )
            return
    if stored is None:
        todo = "check for a transaction that was left open on the topic, and for a broker that is down"
        came = f"none within {_READ_BACK_S:g} s"
        yield wrong("write and read", expected=f"the record that was written to {partition}", came=came, todo=todo)
        return
    yield ok("write and read", f"a record was acknowledged in {after - before:,} ms and read back")
    ahead = max(stored.timestamp_ms - after, 0) or min(stored.timestamp_ms - before, 0)
    if abs(ahead) > CLOCK_S * 1000:
        came = f"{abs(ahead) / 1000:,.1f} s, by which the log is {'ahead' if ahead > 0 else 'behind'}"
        yield wrong_clock(expected=f"clocks that differ by less than {CLOCK_S:g} s", came=came)
    else:
        yield ok("clock", f"this machine and the log differ by less than {CLOCK_S:g} s")


async def _read_back(transport: Transport, partition: TopicPartition, offset: int) -> LogRecord | None:
    async with await transport.consumer([partition.topic]) as consumer:
        with anyio.move_on_after(_READ_BACK_S):
            while partition not in consumer.assignment():
                await consumer.poll(timeout=0.2)
            await consumer.seek(partition, offset)
            consumer.resume(partition)
            while True:
                for stored in (await consumer.poll()).records:
                    if stored.offset == offset:
                        return stored
    return None
