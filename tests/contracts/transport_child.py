"""What the other processes of the transport contract do: `python -m tests.contracts.transport_child SCENARIO JSON`."""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec

from prela_stream.errors import TransportError
from prela_stream.transport.base import CommitOutcome, Committed, Record, TopicSpec
from tests.contracts.transport_harness import Log, assigned, send


def report(text: str) -> None:
    """Send a line to the test."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def append(log: Log, name: str, count: int) -> None:
    """Make the topic if need be and append `name:0`, `name:1`, … in batches of three."""
    async with log.open() as transport:
        await transport.create_topics([log.spec("shared", 2)])
        async with await transport.producer() as producer:
            for start in range(0, count, 3):
                batch = [f"{name}:{index}".encode() for index in range(start, min(start + 3, count))]
                await send(producer, log.at("shared", start % 2), *batch)
    report("done")


async def create(log: Log, topics: list[str]) -> None:
    """Wait for the word, then create topics and print those that this process made."""
    async with log.open() as transport:
        report("ready")
        await anyio.to_thread.run_sync(sys.stdin.readline)
        specs: list[TopicSpec] = [log.spec(topic, 3) for topic in topics]
        report(json.dumps(await transport.create_topics(specs)))


async def hold(log: Log, topic: str, group: str, count: int) -> None:
    """Hold `count` partitions of the group and poll until the end."""
    async with log.open() as transport, await transport.consumer([log.name(topic)], group=log.name(group)) as consumer:
        await assigned(consumer, count)
        report("holding")
        while True:
            await consumer.poll()


async def stale(log: Log, topic: str, group: str, count: int) -> None:
    """Hold `count` partitions, stop, and when it goes on, commit without polling and print what came of it."""
    async with log.open() as transport, await transport.consumer([log.name(topic)], group=log.name(group)) as consumer:
        partitions = await assigned(consumer, count)
        # Its heartbeats are behind this answer. Stopped within one it would keep a log file locked.
        await consumer.committed(partitions[0])
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            await consumer.commit({partition: Committed(offset=99) for partition in partitions})
        except TransportError as error:
            report(type(error).__name__)
        else:
            report("committed")


async def commits(log: Log) -> None:
    """Commit pairs of numbered records to two topics with the next offset, from the committed offset on, until it is stopped."""
    async with log.open() as transport:
        writer = await transport.writer(log.name("group"), log.at("source"))
        number = writer.committed.offset if writer.committed else 0
        report("begun")
        while True:
            value = Record(value=b"%d" % number)
            pair = [(log.at("left"), value), (log.at("right"), value)]
            outcome = await writer.commit(pair, number + 1, f"after {number}")
            assert outcome is CommitOutcome.COMMITTED
            number += 1


SCENARIOS: dict[str, Callable[..., Awaitable[None]]] = {
    "append": append,
    "create": create,
    "hold": hold,
    "stale": stale,
    "commits": commits,
}


def main() -> None:
    """Run the scenario that the command line names."""
    arguments: dict[str, Any] = json.loads(sys.argv[2])
    log = msgspec.convert(arguments.pop("log"), Log)
    anyio.run(lambda: SCENARIOS[sys.argv[1]](log, **arguments))


if __name__ == "__main__":
    main()
