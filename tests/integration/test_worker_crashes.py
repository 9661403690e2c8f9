"""Real worker processes on a real log: killed a hundred times, stopped, started. An oracle reads the log from outside."""

import itertools
import random
from pathlib import Path

import anyio
import pytest

from prela_stream.app import ready_transport
from prela_stream.codec.spans import decode_head, encode_batch
from prela_stream.config import load_settings
from prela_stream.model.decision import Trigger
from prela_stream.model.ids import partition_of
from prela_stream.transport.base import Record, TopicPartition
from tests.support.oracle import (
    HALF,
    QUICK_ASSEMBLY,
    Load,
    ThroughTransport,
    all_is_decided,
    checkpoint_of,
    hold_against_acknowledged,
    hold_against_reference,
    outcome_of,
    position_is,
)
from tests.support.processes import STOP_S, Service
from tests.support.programs import Faults, simulate
from tests.support.scraper import Scraper

KILLS = 100
REPLAYS = 20

SETTINGS = """
directory = "{directory}"
policies_file = "{directory}/policies.toml"

[topics]
partitions = 3

[local]
session_timeout_ms = 400

[worker]
core = "{core}"
commit_interval_ms = 40
"""


@pytest.fixture
def config(tmp_path: Path, process_core: str) -> Path:
    file = tmp_path / "prela.toml"
    file.write_text(SETTINGS.format(directory=tmp_path, core=process_core) + QUICK_ASSEMBLY, encoding="utf-8")
    (tmp_path / "policies.toml").write_text(HALF, encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_hundred_sigkills_lose_split_and_repeat_nothing(config: Path, tmp_path: Path) -> None:
    settings = load_settings(config, {})
    rng = random.Random(20)
    numbers = itertools.count()

    async with ready_transport(settings) as transport, anyio.create_task_group() as scraping:
        scraper = Scraper(scraping, interval_s=0.05)

        def start() -> Service:
            log = tmp_path / f"worker-{next(numbers):03}.log"
            return scraper.start("worker", "--config", str(config), log=log)

        load = Load(transport, settings, rng)
        workers = [start() for _ in range(2)]
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(load.run)
                kills = 0
                # enough takeovers have something to replay
                while kills < KILLS or scraper.total("prela_worker_restores_total", start="replay") < REPLAYS:
                    kills += 1
                    victim = rng.randrange(len(workers))
                    if rng.random() < 0.2:  # on a busy machine most would die before they have done anything
                        await scraper.ready(workers[victim])
                    await anyio.sleep(rng.uniform(0.0, 0.5))  # the random moment
                    workers[victim].kill()
                    workers[victim] = start()
                load.finished = True
            await scraper.ready(*workers)  # else a signal may meet a Python that does not listen yet
            await all_is_decided(ThroughTransport(transport), settings)
            codes = [await worker.stop(within=STOP_S) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        found = await outcome_of(ThroughTransport(transport), settings)
    assert codes == [0, 0]
    hold_against_reference(found, settings)
    hold_against_acknowledged(found, load.acknowledged)
    triggers = {d.trigger for decisions in found.decisions.values() for d in decisions}
    assert {Trigger.COMPLETE, Trigger.ROOT_WAIT, Trigger.IDLE} <= triggers
    assert sum(f.late for f in found.fragments) > 0


async def test_a_stop_decides_nothing_and_the_next_worker_goes_on(config: Path, tmp_path: Path) -> None:
    patient = {
        "PRELA_LOCAL_SESSION_TIMEOUT_MS": "60000",
        "PRELA_ASSEMBLY_MAX_AGE_MS": "600000",
        "PRELA_ASSEMBLY_IDLE_MS": "600000",
        "PRELA_ASSEMBLY_IDLE_WITHOUT_HEARTBEATS_MS": "600000",
        "PRELA_ASSEMBLY_ROOT_WAIT_MS": "600000",
        "PRELA_TOPICS_PARTITIONS": "1",
    }
    settings = load_settings(config, patient)
    rng = random.Random(3)
    async with ready_transport(settings) as transport, await transport.producer() as producer:
        trace_id = b"\x01" * 9 + b"\xff" * 7
        program = simulate(rng, Faults(), trace_id=trace_id)
        place = TopicPartition(settings.topics.spans, partition_of(trace_id, settings.topics.partitions))
        half = len(program.sends) // 2
        for send in program.sends[:half]:
            await producer.send(place, [Record(value=encode_batch(send.resource, [send.item]))])
        worker = Service("worker", "--config", str(config), log=tmp_path / "first.log", env=patient)
        try:
            await position_is(ThroughTransport(transport), settings, place.partition, half)
        except BaseException:
            worker.kill()
            raise
        assert await worker.stop(within=STOP_S) == 0
        found = await checkpoint_of(ThroughTransport(transport), settings, place.partition)
        assert found is not None
        assert found[1].counters.open > 0
        assert await ThroughTransport(transport).records(settings.topics.decisions, settings.topics.partitions) == []
        second = Service("worker", "--config", str(config), log=tmp_path / "second.log", env=patient)
        try:
            for send in program.sends[half:]:
                await producer.send(place, [Record(value=encode_batch(send.resource, [send.item]))])
            await all_is_decided(ThroughTransport(transport), settings)
        finally:
            assert await second.stop(within=STOP_S) == 0
        outcome = await outcome_of(ThroughTransport(transport), settings)
    (decision,) = outcome.decisions[place.partition]
    assert (decision.trigger, decision.complete, decision.kept) == (Trigger.COMPLETE, True, True)
    (fragment,) = outcome.fragments
    assert {decode_head(raw).span_id for _, raw in fragment.items} == set(program.spans)
