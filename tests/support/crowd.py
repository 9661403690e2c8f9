"""Worker processes on a real Kafka under load, which a test kills, stops and starts; and the checks at the end."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka
import anyio
import msgspec

from prela_stream.app.adapters import group_of, make_topics, open_transport
from prela_stream.config import Settings, load_settings
from prela_stream.transport.base import Transport
from tests.support.kafka_log import KafkaLog, Transaction
from tests.support.oracle import (
    HALF,
    QUICK_ASSEMBLY,
    Load,
    Outcome,
    all_is_decided,
    checkpoint_of,
    hold_against_acknowledged,
    hold_against_reference,
    outcome_of,
)
from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.scraper import Scraper

_SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"

[topics]
prefix = "{prefix}"
partitions = {partitions}

[kafka]
bootstrap = ["{bootstrap}"]
session_timeout_ms = {session_ms}

[worker]
core = "{core}"
commit_interval_ms = {commit_ms}
commit_timeout_s = {commit_timeout_s}
"""


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """Counts that prove that faults happened."""

    takeovers: int
    """Takeovers of partitions with an earlier commit."""
    replayed: int
    """Takeovers with records to replay."""
    returned: int
    """Partitions that a rebalance assigned to the same worker again, without a restore."""
    fenced: int
    """Writers that were fenced."""
    failed_commits: int
    """Commits with the outcome aborted or unknown."""
    epochs: int
    """Producer epochs of all partitions' writers."""
    generations: int
    """Generations of the consumer group."""


class Crowd:
    """The workers of one group, and their load."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        config: Path,
        transport: Transport,
        outside: KafkaLog,
        rng: random.Random,
        scraper: Scraper,
    ) -> None:
        self.bootstrap = bootstrap
        self.config = config
        self.settings: Settings = load_settings(config, {})
        self.transport = transport
        self.outside = outside
        self.rng = rng
        self.load = Load(transport, self.settings, rng)
        self.workers: list[Service] = []
        self._folder = folder
        self._started = 0
        self._loaded = anyio.Event()
        self.scraper = scraper

    @property
    def group(self) -> str:
        """The consumer group of the workers."""
        return group_of(self.settings, self.settings.worker.group)

    def start(self) -> Service:
        """Start one more worker."""
        self._started += 1
        log = self._folder / f"worker-{self._started:03}.log"
        worker = self.scraper.start("worker", "--config", str(self.config), log=log)
        self.workers.append(worker)
        return worker

    def kill(self, worker: Service) -> None:
        """SIGKILL."""
        self.workers.remove(worker)
        worker.kill()

    async def stop(self, worker: Service) -> None:
        """SIGTERM once the worker handles it. It has to exit in time with code 0."""
        await self.scraper.ready(worker)
        await self.scraper.scrape(worker)
        assert await worker.stop(within=STOP_S) == 0, worker.output()
        self.workers.remove(worker)

    async def rebalanced(self) -> None:
        """Wait until a rebalance has assigned the partitions to the current workers."""
        with anyio.fail_after(DEADLINE):
            while not await self.outside.group_is_stable(self.group, len(self.workers)):
                await anyio.sleep(0.05)

    async def run_load(self) -> None:
        """Produce load until `judge`."""
        await self.load.run()
        self._loaded.set()

    def expect(self, trace_id: str, span_id: str) -> None:
        """Expect a span that was not sent by the load."""
        self.load.acknowledged[bytes.fromhex(trace_id), bytes.fromhex(span_id)] += 1

    async def judge(self) -> Outcome:
        """End the load, wait until everything is decided, stop the workers, and check I2, I3, I4, I5 and I9.

        I9: nothing is left to read, and no transaction is open.
        """
        self.load.finished = True
        with anyio.fail_after(DEADLINE):
            await self._loaded.wait()
        await all_is_decided(self.outside, self.settings)
        for worker in list(self.workers):
            await self.stop(worker)
        await self._all_is_over()
        found = await outcome_of(self.outside, self.settings)
        hold_against_reference(found, self.settings)
        hold_against_acknowledged(found, self.load.acknowledged)
        return found

    async def _all_is_over(self) -> None:
        """Check that no transaction is open and no record is held back."""
        topics = self.settings.topics
        await self.outside.transactions_are_over(self._transactional_ids())
        for topic, partitions in (
            (topics.spans, topics.partitions),
            (topics.decisions, topics.partitions),
            (topics.sampled, topics.sampled_partitions),
            (topics.dlq, 1),
        ):
            assert await self.outside.held_back(topic, partitions) == 0, f"{topic} has an open transaction"

    async def position(self, partition: int) -> int:
        """The position in the last checkpoint of a partition."""
        found = await checkpoint_of(self.outside, self.settings, partition)
        return found[1].position if found else 0

    async def positions(self) -> list[int]:
        """The position in the last checkpoint of each partition."""
        return [await self.position(number) for number in range(self.settings.topics.partitions)]

    async def committed_beyond(self, before: list[int]) -> None:
        """Wait until the checkpoint of every partition is beyond these positions."""
        with anyio.fail_after(DEADLINE):
            while not all(now > then for now, then in zip(await self.positions(), before, strict=True)):
                await anyio.sleep(0.05)

    async def transactions(self) -> list[Transaction]:
        """The transaction state of each partition's writer."""
        return [await self.outside.transaction(name) for name in self._transactional_ids()]

    def _transactional_ids(self) -> list[str]:
        topics = self.settings.topics
        return [f"{self.group}-{topics.spans}-{number}" for number in range(topics.partitions)]

    def replays(self) -> int:
        """The number of takeovers with records to replay."""
        return self.scraper.total("prela_worker_restores_total", start="replay")

    async def signs(self) -> Signs:
        """Count the faults. Call it when the workers have stopped."""
        commits = "prela_worker_commits_total"
        return Signs(
            takeovers=self.replays() + self.scraper.total("prela_worker_restores_total", start="committed"),
            replayed=self.replays(),
            returned=self.scraper.total("prela_worker_returned_partitions_total"),
            fenced=self.scraper.total("prela_worker_fences_total"),
            failed_commits=self.scraper.total(commits, outcome="aborted")
            + self.scraper.total(commits, outcome="unknown"),
            epochs=sum(transaction.epoch for transaction in await self.transactions()),
            generations=await self._generation(),
        )

    async def _generation(self) -> int:
        """The generation of the group that a new member joins."""
        member: Any = aiokafka.AIOKafkaConsumer(
            self.settings.topics.spans,
            bootstrap_servers=self.bootstrap,
            group_id=self.group,
            enable_auto_commit=False,
        )
        await member.start()
        try:
            return int(member._coordinator.generation)
        finally:
            await member.stop()


@asynccontextmanager
async def crowd(
    bootstrap: str,
    prefix: str,
    folder: Path,
    *,
    core: str,
    seed: int,
    partitions: int = 6,
    session_ms: int = 6_000,
    commit_ms: int = 50,
    commit_timeout_s: float = 5.0,
) -> AsyncIterator[Crowd]:
    """Topics and load, without workers yet. All workers are killed at the end."""
    config = folder / "prela.toml"
    settings = _SETTINGS.format(
        folder=folder,
        core=core,
        prefix=prefix,
        partitions=partitions,
        bootstrap=bootstrap,
        session_ms=session_ms,
        commit_ms=commit_ms,
        commit_timeout_s=commit_timeout_s,
    )
    config.write_text(settings + QUICK_ASSEMBLY, encoding="utf-8")
    (folder / "policies.toml").write_text(HALF, encoding="utf-8")
    chosen = load_settings(config, {})
    async with open_transport(chosen) as transport, KafkaLog(bootstrap) as outside:
        await make_topics(chosen, transport)
        async with anyio.create_task_group() as tasks:
            made = Crowd(bootstrap, folder, config, transport, outside, random.Random(seed), Scraper(tasks))
            try:
                tasks.start_soon(made.run_load)
                yield made
            finally:
                tasks.cancel_scope.cancel()
                for worker in made.workers:
                    worker.kill()
