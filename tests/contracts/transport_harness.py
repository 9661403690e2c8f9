"""What the transport contract needs of an implementation, and how its tests read, wait and start processes.

An implementation is named by a function that opens a transport from one string argument, so that other processes of a test
can open the same log. Waiting is always for a condition, with a deadline.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import anyio
import msgspec

from prela_stream.transport.base import Consumer, LogRecord, Producer, Record, TopicPartition, TopicSpec, Transport

DEADLINE = 60.0
"""Seconds that a condition may take on a busy machine; a test that passes takes a fraction of it."""
ROOT = Path(__file__).parents[2]


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """One log of the implementation under test, empty at the start of a test."""

    opener: str
    """`module:function` that takes `argument` and returns a Transport. No test takes as long as its members' sessions."""
    hasty_opener: str
    """As `opener`, of members that are given up a few seconds after they fall silent."""
    argument: str
    prefix: str
    """Goes before topic and group names; other tests may share the broker."""

    def open(self) -> Transport:
        """A new transport on this log."""
        module, name = self.opener.split(":")
        return cast("Transport", getattr(importlib.import_module(module), name)(self.argument))

    def hasty(self) -> "Log":
        """The same, for a member that is to fall silent."""
        return msgspec.structs.replace(self, opener=self.hasty_opener)

    def name(self, short: str) -> str:
        """A topic or group of this test's own."""
        return f"{self.prefix}.{short}"

    def at(self, short: str, partition: int = 0) -> TopicPartition:
        """A partition of a topic of this test's own."""
        return TopicPartition(self.name(short), partition)

    def spec(self, short: str, partitions: int = 1, **more: Any) -> TopicSpec:
        """A topic of this test's own."""
        return TopicSpec(name=self.name(short), partitions=partitions, **more)


def values(records: Sequence[LogRecord]) -> list[bytes | None]:
    """Their values, in order."""
    return [record.value for record in records]


async def send(producer: Producer, to: TopicPartition, *contents: bytes) -> int:
    """Send one batch of records with these values."""
    return await producer.send(to, [Record(value=content) for content in contents])


async def reading(transport: Transport, *topics: str, group: str | None = None) -> Consumer:
    """A consumer that reads whatever it is assigned first."""
    consumer = await transport.consumer(topics, group=group)
    await assigned(consumer)
    return consumer


async def assigned(consumer: Consumer, count: int = 1) -> list[TopicPartition]:
    """Poll until `count` partitions are assigned, resume and return them. No record may be returned before."""
    with anyio.fail_after(DEADLINE):
        while len(consumer.assignment()) < count:
            poll = await consumer.poll()
            assert not poll.records, "records of partitions that were never resumed"
    consumer.resume(*consumer.assignment())
    return sorted(consumer.assignment())


async def take(consumer: Consumer, count: int) -> list[LogRecord]:
    """Poll until `count` records have come; more is a failure."""
    found: list[LogRecord] = []
    with anyio.fail_after(DEADLINE):
        while len(found) < count:
            poll = await consumer.poll()
            consumer.resume(*poll.assigned)
            found += poll.records
    assert len(found) == count, f"expected {count} records, got {len(found)}"
    return found


async def everything(transport: Transport, *partitions: TopicPartition) -> list[list[LogRecord]]:
    """All records of each partition, up to where it ends now."""
    result: list[list[LogRecord]] = []
    for partition in partitions:
        async with await transport.consumer([partition.topic]) as consumer:
            await assigned(consumer)
            consumer.pause(*consumer.assignment() - {partition})
            end = await consumer.high_watermark(partition)  # a commit of a moment ago may not be readable yet
            found: list[LogRecord] = []
            with anyio.fail_after(DEADLINE):
                while await consumer.position(partition) < end:
                    found += (await consumer.poll(timeout=0.05)).records
        result.append([record for record in found if record.offset < end])
    return result


class Child:
    """Another process on the same log, running a scenario of transport_child.py; killed at the end if it still runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._out = cast("IO[str]", process.stdout)
        self._in = cast("IO[str]", process.stdin)

    async def line(self) -> str:
        """The next line that it prints; an empty string if it has ended."""
        with anyio.fail_after(DEADLINE):
            return (await anyio.to_thread.run_sync(self._out.readline, abandon_on_cancel=True)).strip()

    def signal(self) -> None:
        """Let it go on."""
        self._in.write("go\n")
        self._in.flush()

    async def stopped(self) -> None:
        """Wait until it has stopped itself, with all its threads."""
        what = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        with anyio.fail_after(DEADLINE):
            await anyio.to_thread.run_sync(os.waitid, os.P_PID, self.process.pid, what, abandon_on_cancel=True)
        assert self.process.poll() is None, "it ended instead"

    async def ended(self) -> int:
        """Wait for its end and return its exit code."""
        return await anyio.to_thread.run_sync(lambda: self.process.wait(DEADLINE))


@contextmanager
def child(log: Log, scenario: str, **arguments: Any) -> Iterator[Child]:
    """Run a scenario of transport_child.py in another process."""
    command = [sys.executable, "-m", "tests.contracts.transport_child", scenario]
    text = json.dumps({"log": msgspec.to_builtins(log), **arguments})
    with subprocess.Popen(
        [*command, text], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
