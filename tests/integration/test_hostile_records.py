"""A worker process on a real Kafka, with hostile records in every place of a partition.

Its memory stays bounded, it does not exit, it decides all other spans, and the dead letters have the places and the number of the
bad items.
"""

import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka
import anyio
import pytest

from prela_stream.app.adapters import make_topics, open_transport
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.dlq import DeadLetter, decode_dead_letter
from prela_stream.codec.spans import MAX_ITEMS, encode_batch, encode_item
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Decision, Trigger
from prela_stream.model.span import ItemKind
from tests.support.kafka_log import KafkaLog
from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.workers import whole_trace

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc"),
]
MOST_RSS_MB = 400
_SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"
[topics]
prefix = "{prefix}"
partitions = 1
[kafka]
bootstrap = ["{bootstrap}"]
[worker]
core = "{core}"
commit_interval_ms = 100
[assembly]
root_wait_ms = 600_000
idle_without_heartbeats_ms = 600_000
"""
LENGTH = (10**9).to_bytes(4, "big")


def _span(number: int, *fields: object) -> bytes:
    return encode_item(ItemKind.SPAN, b"hostile!" + number.to_bytes(8, "big"), number.to_bytes(8, "big"), *fields)


def hostile(rng: random.Random) -> dict[str, bytes]:
    """Values of records, by what is wrong with them."""
    million = b"\x01\x92\x80\xdd" + (1_000_000).to_bytes(4, "big")
    return {
        "a million ticks": million + b"\x91\x06" * 1_000_000,
        "a million spans": encode_batch(b"\x80", [_span(number) for number in range(1_000_000)]),
        "four million items": encode_batch(b"\x80", [])[:-4] + (4_000_000).to_bytes(4, "big") + b"\xc0" * 4_000_000,
        "a million items, cut": million + b"\x91\x06" * 900_000,
        "a gigabyte of items": b"\x01\x92\x80\xdd" + LENGTH,
        "a gigabyte of entries": b"\x01\x92\xdf" + LENGTH,
        "a gigabyte of bytes": b"\x01\x92\x80\x91\xc6" + LENGTH,
        "a gigabyte of text": b"\x01\x92\x80\x91\x93\x00\xc4\x10" + bytes(16) + b"\xdb" + LENGTH,
        "nothing": b"",
        "another version": b"\x07\x92\x80\x90",
        "version 0": b"\x00",
        "noise": rng.randbytes(100_000),
        "nested": b"\x01\x92\x80\x91" + b"\x91" * 10_000_000,
        "many values, cut": b"\x01\x92\x80\x92\xdd" + (20_000_000).to_bytes(4, "big") + b"\xc0" * 10_000_000,
        "bad items": encode_batch(b"\x80", [b"\xc3", b"\x91\x00"] * (MAX_ITEMS // 2)),
        "a large resource": encode_batch(
            b"\xdf" + (400_000).to_bytes(4, "big") + b"\xa1k\xc0" * 400_000, [_span(1)] * 3
        ),
        "a large item": encode_batch(b"\x80", [_span(2, None, 0, 1, 0, 0, 0, None, 0, 1, 1, "x" * 2_000_000)]),
        "a batch of 400 MB": bytes(400 << 20),
    }


async def append(bootstrap: str, topic: str, values: Sequence[bytes]) -> list[int]:
    """Append each value as a batch, compressed, however large; returns the offsets."""
    offsets: list[int] = []
    producer: Any = aiokafka.AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type="zstd",
        max_batch_size=1 << 30,
        max_request_size=1 << 30,
        acks="all",
    )
    await producer.start()
    try:
        for value in values:
            batch = producer.create_batch()
            batch.append(timestamp=None, key=None, value=value)
            batch.close()
            offsets.append((await (await producer.send_batch(batch, topic, partition=0))).offset)
    finally:
        await producer.stop()
    return offsets


def peak_rss_mb(pid: int) -> int:
    """The largest resident memory of a process so far."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


@asynccontextmanager
async def worker_on(
    kafka: str, prefix: str, folder: Path, core: str
) -> AsyncIterator[tuple[Service, Settings, KafkaLog]]:
    """A worker process on topics with one partition; it has to exit with code 0 at the end."""
    config = folder / "prela.toml"
    config.write_text(_SETTINGS.format(folder=folder, prefix=prefix, bootstrap=kafka, core=core), encoding="utf-8")
    (folder / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n', encoding="utf-8")
    settings = load_settings(config, {})
    async with open_transport(settings) as transport, KafkaLog(kafka) as outside:
        await make_topics(settings, transport)
        worker = Service("worker", "--config", str(config), log=folder / "worker.log")
        try:
            yield worker, settings, outside
            assert await worker.stop(within=STOP_S) == 0, worker.output()
        finally:
            worker.kill()


async def decided(outside: KafkaLog, settings: Settings, count: int, worker: Service) -> list[Decision]:
    """Wait for the decisions on this many complete traces."""
    with anyio.fail_after(4 * DEADLINE):
        while True:
            records = await outside.records(settings.topics.decisions, 1)
            found = [one for record in records for one in decode_decisions(record.value or b"")]
            if sum(one.complete for one in found) >= count:
                return found
            assert worker.process.poll() is None, worker.output()
            await anyio.sleep(0.1)


async def test_hostile_records_cost_bounded_memory_and_delay_no_other_span(
    kafka: str, kafka_prefix: str, tmp_path: Path, core: CoreKind
) -> None:
    rng = random.Random(5)
    kinds = hostile(rng)
    values: list[bytes] = []
    names: list[str] = []
    traces = 0
    for place in ("first", "between the spans of a trace", "last"):
        order = list(kinds)
        rng.shuffle(order)
        for name in order:
            traces += 1
            items = whole_trace(traces)
            halves = [encode_batch(b"\x80", items[:1]), encode_batch(b"\x80", items[1:])]
            at = {"first": 0, "last": 2}.get(place, 1)
            halves.insert(at, kinds[name])
            values += halves
            names += ["", "", ""]
            names[at - 3] = name
    async with worker_on(kafka, kafka_prefix, tmp_path, core.name) as (worker, settings, outside):
        offsets = await append(kafka, settings.topics.spans, values)
        began = anyio.current_time()
        found = await decided(outside, settings, traces, worker)
        sys.stdout.write(f"{anyio.current_time() - began:.1f} s after the last acknowledgement\n")
        rss = peak_rss_mb(worker.process.pid)
        letters = [decode_dead_letter(one.value or b"") for one in await outside.records(settings.topics.dlq, 1)]
    sys.stdout.write(f"peak RSS {rss} MB, {len(letters)} dead letters\n")
    assert rss < MOST_RSS_MB
    whole = [one for one in found if one.complete]
    assert sorted(one.trace_id for one in whole) == [number.to_bytes(16, "big") for number in range(1, traces + 1)]
    assert {one.trigger for one in whole} == {Trigger.COMPLETE}
    _check_letters(letters, {offset: name for offset, name in zip(offsets, names, strict=True) if name})


def _check_letters(letters: Sequence[DeadLetter], names: dict[int, str]) -> None:
    by_offset: dict[int, list[DeadLetter]] = {}
    for letter in letters:
        by_offset.setdefault(letter.offset, []).append(letter)
    counts = {
        "a million ticks": 1_000_000,
        "a million spans": 1_000_000,
        "four million items": 4_000_000,
        "bad items": MAX_ITEMS,
        "a large resource": 3,
    }
    assert set(by_offset) == set(names)
    for offset, found in by_offset.items():
        name = names[offset]
        assert sum(letter.count for letter in found) == counts.get(name, 1), (name, [letter.reason for letter in found])
        if name == "bad items":
            assert [(one.index, one.count, len(one.places)) for one in found] == [(0, 8_192, 8_192), (1, 8_192, 8_192)]
        elif found[0].index >= 0:
            assert sum(number for letter in found for _, number in letter.places) == counts.get(name, 1)
