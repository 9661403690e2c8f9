"""SIGTERM ends a worker process cleanly, whatever it is doing, and its successor decides the rest: every trace once.

The promise is 10 s. These tests allow three times as much, because other processes may load the machine, and print what it took.
"""

import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from prela_stream.app.adapters import group_of, make_topics, open_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import encode_batch, encode_item
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Decision
from prela_stream.model.span import ItemKind
from prela_stream.transport.base import Record, TopicPartition, Transport
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.local.transport import wall_ms
from prela_stream.worker.checkpoint import Checkpoint
from prela_stream.worker.ticks import tick_record
from tests.support.oracle import ThroughTransport
from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.slow_broker import slow_broker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM"),
]
_SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"
[topics]
prefix = "{prefix}"
partitions = 1
[worker]
core = "{core}"
commit_interval_ms = 20
commit_bytes = 200_000
[assembly]
max_age_ms = 2_000_000_000
"""
_KEEP = '[[policy]]\nname = "all"\ntype = "always"\n'
_NASTY = '[[policy]]\nname = "nasty"\ntype = "attribute"\nkey = "text"\nregex = "(a+)+(a|aa)*$"\n'
_IDLE_MS = 900_000


def _span(number: int, *fields: object) -> bytes:
    return encode_item(ItemKind.SPAN, number.to_bytes(16, "big"), number.to_bytes(8, "big"), *fields)


def whole(number: int) -> bytes:
    """The only span of a trace."""
    return _span(number, None, 0, 1, 0, 0)


def partial(number: int) -> bytes:
    """A span without its root: its trace is due after `_IDLE_MS`."""
    return _span(number, b"root0000", 1, 1, 0, 0)


def with_text(number: int, text: str) -> bytes:
    """The only span of a trace, with an attribute."""
    return _span(number, None, 0, 1, 0, 0, 0, None, 5, 1_000, 5, "a", None, None, {"text": text})


async def fill(transport: Transport, to: TopicPartition, items: list[bytes], a_record: int = 100) -> None:
    """Append these items in records."""
    values = [encode_batch(b"\x80", items[at : at + a_record]) for at in range(0, len(items), a_record)]
    async with await transport.producer() as producer:
        for at in range(0, len(values), 50):
            await producer.send(to, [Record(value=value) for value in values[at : at + 50]])


async def fill_over_time(settings: Settings, to: TopicPartition, items: list[bytes]) -> None:
    """As `fill`, a second for each 5,000 items."""
    seconds = 0

    def clock() -> int:
        return wall_ms() + 1_000 * seconds

    async with LocalTransport(settings.local, clock=clock) as later:
        for at in range(0, len(items), 5_000):
            seconds += 1
            await fill(later, to, items[at : at + 5_000])


async def let_time_pass(settings: Settings, to: TopicPartition) -> None:
    """Append two records that are stamped later than any wait."""
    async with (
        LocalTransport(settings.local, clock=lambda: wall_ms() + 2 * _IDLE_MS) as later,
        await later.producer() as producer,
    ):
        await producer.send(to, [tick_record(), tick_record()])


class Log:
    """A log with one partition, worker processes on it, and its decisions."""

    def __init__(self, config: Path, settings: Settings, transport: Transport) -> None:
        self.config = config
        self.settings = settings
        self.transport = transport
        self.spans = TopicPartition(settings.topics.spans, 0)
        self.workers: list[Service] = []
        self.env: dict[str, str] = {}
        """Additional environment variables of workers that are started from now on."""

    def start(self) -> Service:
        """Start a worker."""
        log = self.config.with_name(f"worker-{len(self.workers)}.log")
        self.workers.append(Service("worker", "--config", str(self.config), log=log, env=self.env))
        return self.workers[-1]

    async def decisions(self) -> list[Decision]:
        """All committed decisions."""
        records = await ThroughTransport(self.transport).records(self.settings.topics.decisions, 1)
        return [one for record in records for one in decode_decisions(record.value or b"")]

    async def position(self) -> int:
        """Of the last commit; 0 before the first."""
        found = await self.transport.committed(group_of(self.settings, self.settings.worker.group), self.spans)
        return 0 if found is None else msgspec.json.decode(found.metadata, type=Checkpoint).position

    async def wait_until(
        self, condition: Callable[[], Awaitable[bool]], worker: Service, every_s: float = 0.005
    ) -> None:
        """Wait for a condition while this worker runs."""
        with anyio.fail_after(2 * DEADLINE):
            while not await condition():
                assert worker.process.poll() is None, worker.output()
                await anyio.sleep(every_s)

    async def stop(self, worker: Service) -> None:
        """SIGTERM: the worker ends with exit code 0."""
        began = time.monotonic()
        assert await worker.stop(within=STOP_S) == 0, worker.output()
        sys.stdout.write(f"the stop took {time.monotonic() - began:.1f} s\n")

    async def finish(self, traces: int) -> None:
        """Another worker decides the rest; every trace is decided once."""
        worker = self.start()

        async def all_decided() -> bool:
            return len(await self.decisions()) >= traces

        await self.wait_until(all_decided, worker, every_s=0.5)
        await self.stop(worker)
        found = Counter(one.trace_id for one in await self.decisions())
        assert len(found) == traces
        assert set(found.values()) == {1}


@asynccontextmanager
async def new_log(
    folder: Path, core: str, *, policies: str = _KEEP, kafka: str = "", prefix: str = "stops"
) -> AsyncIterator[Log]:
    """A log with its topics; local without `kafka`. At the end its workers are killed."""
    config = folder / "prela.toml"
    text = _SETTINGS.format(folder=folder, core=core, prefix=prefix)
    config.write_text(text + (f'[kafka]\nbootstrap = ["{kafka}"]\n' if kafka else ""), encoding="utf-8")
    (folder / "policies.toml").write_text(policies, encoding="utf-8")
    settings = load_settings(config, {})
    async with open_transport(settings) as transport:
        await make_topics(settings, transport)
        log = Log(config, settings, transport)
        try:
            yield log
        finally:
            for worker in log.workers:
                worker.kill()


async def test_while_it_catches_up(tmp_path: Path, process_core: str) -> None:
    count = 60_000
    async with new_log(tmp_path, process_core) as log:
        await fill_over_time(log.settings, log.spans, [whole(number) for number in range(count)])
        await let_time_pass(log.settings, log.spans)
        worker = log.start()

        async def has_committed() -> bool:
            return await log.position() > 0

        await log.wait_until(has_committed, worker)
        await log.stop(worker)
        assert len(await log.decisions()) < count, "it was not done"
        await log.finish(count)


async def test_in_the_middle_of_a_replay(tmp_path: Path, process_core: str) -> None:
    count = 60_000
    async with new_log(tmp_path, process_core) as log:
        await fill(log.transport, log.spans, [partial(number) for number in range(count)])
        first = log.start()

        async def has_read_all() -> bool:
            return await log.position() == count // 100

        await log.wait_until(has_read_all, first)
        first.kill()
        second = log.start()
        await second.wait_for_output(f"replaying {count // 100} offsets")
        await log.stop(second)
        assert await log.decisions() == []
        await let_time_pass(log.settings, log.spans)
        await log.finish(count)


async def test_in_the_middle_of_traces_that_are_due_at_once(tmp_path: Path, process_core: str) -> None:
    count = 60_000
    async with new_log(tmp_path, process_core) as log:
        await fill(log.transport, log.spans, [partial(number) for number in range(count)])
        await let_time_pass(log.settings, log.spans)
        worker = log.start()

        async def has_decided() -> bool:
            return len(await log.decisions()) > 0

        await log.wait_until(has_decided, worker)
        await log.stop(worker)
        assert 0 < len(await log.decisions()) < count
        assert await log.position() == count // 100, "the record that made them due is not applied"
        await log.finish(count)


async def test_in_a_regular_expression_that_backtracks_elsewhere(tmp_path: Path, process_core: str) -> None:
    count = 2_000
    async with new_log(tmp_path, process_core, policies=_NASTY) as log:
        items = [with_text(number, "a" * 20_000 + "!") for number in range(count)]
        await fill(log.transport, log.spans, items, a_record=20)
        await let_time_pass(log.settings, log.spans)
        worker = log.start()
        await worker.wait_for_output("ready")
        await log.stop(worker)
        await log.finish(count)


@pytest.mark.kafka
async def test_while_the_broker_answers_nothing(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    async with (
        slow_broker(kafka) as broker,
        new_log(tmp_path, process_core, kafka=kafka, prefix=kafka_prefix) as log,
    ):
        log.env = {"PRELA_KAFKA_BOOTSTRAP": broker.bootstrap}
        worker = log.start()
        number = 0

        async def has_committed() -> bool:
            nonlocal number
            await fill(log.transport, log.spans, [whole(one) for one in range(number, number + 1_000)])
            number += 1_000
            return await log.position() > 0

        await log.wait_until(has_committed, worker)
        broker.delay_s = 10 * DEADLINE
        await fill(log.transport, log.spans, [whole(one) for one in range(number, number + 1_000)])
        await log.stop(worker)
        assert await log.position() < (number + 1_000) // 100
        log.env = {}
        await log.finish(number + 1_000)
