"""Takeover: how long after a SIGKILL the next worker decides again, with undecided spans and an hour of decisions to read back.

The topic has decided traces of the last hour of stream time, and undecided traces of ten spans of 1 KB. A worker process applies
all of it, commits and is killed. A worker that takes its place starts at the same moment: static membership, so that the group
does not wait for the session to end (`--standby`: another member waits for the partitions, and the session timeout counts).
Complete traces are sent all the time. Prints one JSON document: the seconds from the SIGKILL to the first new decision of each
partition, as a reader of committed records sees it, and the peak memory of both workers.

    python bench/takeover.py [--core native] [--core python] [--spans 1000000] [--decisions 300000] [--standby]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from bench.broker import bench_broker, kafka_settings
from bench.worker import trace_items
from deploy.kafka import KafkaMissingError
from prela_stream.app import create_topics, ready_transport
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.spans import SPANS_FORMAT, encode_batch, encode_item, encode_resource
from prela_stream.codec.versions import FORMAT_HEADER
from prela_stream.config import Settings
from prela_stream.model.ids import partition_of
from prela_stream.model.span import ItemKind, Resource
from prela_stream.transport.base import Consumer, Record, TopicPartition, Transport
from prela_stream.worker.checkpoint import ItemCounters

SPANS_A_TRACE = 10
BUDGET_S = 10.0
A_RECORD = 100
_SPAN_ID = 24
"""Where the span id is in an item of `trace_items`: behind the head of the array, the kind, the trace id and two heads."""
_RESOURCE = encode_resource(Resource(service_name="bench", sdk_version="0", host="h", pid=1))
_POLICIES = '[[policy]]\nname = "few"\ntype = "probabilistic"\nprobability = 0.05\n'


class Sender:
    """Sends items in records of one partition each.

    Args:
        transport: Where to.
        settings: Of the topics.
    """

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self._transport = transport
        self._settings = settings
        self._waiting: dict[int, list[bytes]] = {number: [] for number in range(settings.topics.partitions)}

    async def send(self, traces: Any, a_record: int) -> None:
        """Send the items of (trace id, items)."""
        ready: dict[int, list[Record]] = {number: [] for number in self._waiting}
        async with await self._transport.producer() as producer:
            for trace_id, items in traces:
                partition = partition_of(trace_id, len(self._waiting))
                queue = self._waiting[partition]
                queue += items
                if len(queue) >= a_record:
                    ready[partition].append(_record(queue))
                    queue.clear()
                if len(ready[partition]) >= 2_000 // a_record + 1:
                    await producer.send(TopicPartition(self._settings.topics.spans, partition), ready[partition])
                    ready[partition] = []
            for partition, queue in self._waiting.items():
                if queue:
                    ready[partition].append(_record(queue))
                    queue.clear()
                if ready[partition]:
                    await producer.send(TopicPartition(self._settings.topics.spans, partition), ready[partition])


def _record(items: list[bytes]) -> Record:
    return Record(value=encode_batch(_RESOURCE, items), headers=((FORMAT_HEADER, SPANS_FORMAT),))


def _whole(rng: random.Random, count: int) -> Any:
    """Traces of one span, complete when they arrive."""
    for _ in range(count):
        trace_id = rng.randbytes(16)
        head = (trace_id, rng.randbytes(8), None, 0, 1, 0, 0, 0, None, 0, time.time_ns(), 1_000_000, "job")
        yield trace_id, [encode_item(ItemKind.SPAN, *head)]


def _undecided(rng: random.Random, count: int) -> Any:
    """Traces without their root."""
    body = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=760))
    now = time.time_ns()
    for _ in range(count):
        trace_id, items = trace_items(rng, body, now)
        yield trace_id, [*items[:-1], items[0][:_SPAN_ID] + rng.randbytes(8) + items[0][_SPAN_ID + 8 :]]


async def _applied(transport: Transport, settings: Settings, group: str, ends: dict[int, int]) -> None:
    """Wait until the checkpoints of all partitions are at these offsets."""
    for number, end in ends.items():
        source = TopicPartition(settings.topics.spans, number)
        while True:
            found = await transport.committed(group, source)
            if found is not None and json.loads(found.metadata)["position"] >= end:
                break
            await anyio.sleep(0.2)


async def _ends(transport: Transport, topic: str, partitions: int) -> dict[int, int]:
    async with await transport.consumer([topic]) as log:
        await log.poll(timeout=0)
        return {number: await log.end_offset(TopicPartition(topic, number)) for number in range(partitions)}


def _start(folder: Path, settings: Settings, core: str, instance: str | None, name: str) -> "subprocess.Popen[bytes]":
    env = {
        **os.environ,
        "PRELA_KAFKA_BOOTSTRAP": ",".join(settings.kafka.bootstrap),
        "PRELA_TOPICS_PREFIX": settings.topics.prefix,
        "PRELA_DIRECTORY": str(folder),
        "PRELA_POLICIES_FILE": str(folder / "policies.toml"),
        "PRELA_WORKER_CORE": core,
        **({"PRELA_KAFKA_GROUP_INSTANCE_ID": instance} if instance else {}),
    }
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "prela_stream", "worker"], env=env, stdout=log, stderr=log)


def _peak_rss_mb(pid: int) -> int | None:
    """The peak memory of a process; None where /proc does not have it."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1000 for line in lines if line.startswith("VmHWM")), None)


def _cpu_s(pid: int) -> float | None:
    """CPU seconds of a process; None where /proc does not have it. On a busy machine it shows what a quiet one would take."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


async def _first_decisions(log: Consumer, topic: str, after: dict[int, int], killed: float) -> dict[int, float]:
    """Seconds from the SIGKILL to the first record of decisions at or after these offsets, by partition."""
    found: dict[int, float] = {}
    while len(found) < len(after):
        for record in (await log.poll(timeout=0.02)).records:
            if record.topic == topic and record.offset >= after[record.partition]:
                found.setdefault(record.partition, round(time.monotonic() - killed, 2))
    return found


async def measure(bootstrap: str, core: str, spans: int, decisions: int, standby: bool) -> dict[str, Any]:
    """Fill, kill, measure."""
    rng = random.Random(11)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policies.toml").write_text(_POLICIES, encoding="utf-8")
        settings = kafka_settings(bootstrap, name)
        await create_topics(settings)
        group = f"{settings.topics.prefix}.{settings.worker.group}"
        async with ready_transport(settings) as transport:
            sender = Sender(transport, settings)
            await sender.send(_whole(rng, decisions), A_RECORD)
            await sender.send(_undecided(rng, spans // SPANS_A_TRACE), A_RECORD)
            first = _start(folder, settings, core, None if standby else "only", "first")
            second: subprocess.Popen[bytes] | None = None
            try:
                topic, partitions = settings.topics.spans, settings.topics.partitions
                ends = await _ends(transport, topic, partitions)
                await _applied(transport, settings, group, ends)
                if standby:
                    second = _start(folder, settings, core, None, "second")
                    await anyio.sleep(20)  # until it has joined and half of the partitions are its own
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_keep_sending, sender, rng)
                    await anyio.sleep(3)
                    opened = [await _open_spans(transport, group, TopicPartition(topic, n)) for n in range(partitions)]
                    peaks = [_peak_rss_mb(first.pid)]
                    first.send_signal(signal.SIGKILL)
                    killed, killed_at = time.monotonic(), datetime.now(UTC)
                    first.wait()
                    if second is None:
                        second = _start(folder, settings, core, "only", "second")
                    after = await _ends(transport, settings.topics.decisions, partitions)
                    async with await transport.consumer([settings.topics.decisions]) as log:
                        assigned = (await log.poll(timeout=0)).assigned
                        for source in assigned:
                            await log.seek(source, after[source.partition])
                        log.resume(*assigned)
                        with anyio.fail_after(300):
                            seconds = await _first_decisions(log, settings.topics.decisions, after, killed)
                    peaks.append(_peak_rss_mb(second.pid))
                    cpu_s = _cpu_s(second.pid)
                    tasks.cancel_scope.cancel()
                made = await _count(transport, settings)
                output = (folder / "second.log").read_text(encoding="utf-8", errors="replace")
            finally:
                for process in (first, second):
                    if process is not None:
                        process.kill()
                        process.wait()
    return {
        "core": core,
        "standby": standby,
        "undecided_spans": sum(opened),
        "undecided_traces": spans // SPANS_A_TRACE,
        "decisions": made,
        "seconds_to_first_decision": seconds,
        "seconds": max(seconds.values()),
        "cpu_s_until_then": cpu_s,
        "load": os.getloadavg()[0],
        "peak_rss_mb": peaks,
        "killed_at": f"{killed_at:%H:%M:%S.%f}",
        "log": [line for line in output.splitlines() if "worker" in line],
    }


async def _keep_sending(sender: Sender, rng: random.Random) -> None:
    while True:
        await sender.send(_whole(rng, 40), 1)
        await anyio.sleep(0.1)


async def _open_spans(transport: Transport, group: str, source: TopicPartition) -> int:
    found = await transport.committed(group, source)
    assert found is not None
    checkpoint: dict[str, Any] = json.loads(found.metadata)
    return int(checkpoint["counters"][ItemCounters.__struct_fields__.index("open")])


async def _count(transport: Transport, settings: Settings) -> int:
    """The number of decisions in the log."""
    count = 0
    async with await transport.consumer([settings.topics.decisions]) as log:
        assigned = (await log.poll(timeout=0)).assigned
        ends = {source: await log.end_offset(source) for source in assigned}
        log.resume(*assigned)
        while any([await log.position(source) < end for source, end in ends.items()]):
            for record in (await log.poll(timeout=0.1)).records:
                count += len(decode_decisions(record.value or b""))
    return count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", choices=("native", "python"), action="append", help="default: both")
    parser.add_argument("--spans", type=int, default=1_000_000, help="undecided spans")
    parser.add_argument("--decisions", type=int, default=300_000, help="decisions of the last hour")
    parser.add_argument("--standby", action="store_true", help="another member of the group takes over")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"bench": "takeover", "cpus": os.cpu_count(), "budget_s": BUDGET_S, "rows": []}
    try:
        with bench_broker() as bootstrap:
            for core in arguments.core or ("native", "python"):
                row = anyio.run(measure, bootstrap, core, arguments.spans, arguments.decisions, arguments.standby)
                result["rows"].append(row)
    except KafkaMissingError as error:
        result["missing"] = str(error)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
