"""A broker that is away for half a minute: workers and agents go on by themselves, and nothing is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

import prela_stream
from prela_stream.delivery.ledger import LedgerSnapshot
from tests.support.crowd import Crowd, crowd
from tests.support.kafka import Clusters
from tests.support.processes import DEADLINE

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
AWAY_S = min(float(os.environ.get("PRELA_CHAOS_S", "30")), 30.0)
STARTS_WITHOUT_A_BROKER = """
import json, sys
import prela_stream as prela

prela.init("late")
ids = []
for number in range(20):
    with prela.get_tracer().span("agent", span_type=prela.SpanType.AGENT) as root:
        with prela.get_tracer().span("tool", span_type=prela.SpanType.TOOL) as tool:
            pass
    ids += [[root.trace_id, root.span_id], [tool.trace_id, tool.span_id]]
result = prela.flush(90.0)
ledger = prela.shutdown()
print(json.dumps({"ids": ids, "complete": result.complete, "ledger": str(ledger), "balances": ledger.balances}))
"""


class Agent:
    """An agent in this process that records a small trace twenty times a second."""

    def __init__(self, workers: Crowd) -> None:
        self._workers = workers
        self._finished = anyio.Event()
        self.ledger: LedgerSnapshot | None = None

    async def run(self) -> None:
        """Record until `finish`; then see to it that all of it is acknowledged."""
        tracer = prela_stream.get_tracer()
        async with prela_stream.pipeline(self._workers.settings) as pipeline:
            while not self._finished.is_set():
                with tracer.span("agent", span_type=prela_stream.SpanType.AGENT) as root:
                    for _ in range(3):
                        with tracer.span("tool", span_type=prela_stream.SpanType.TOOL) as tool:
                            self._workers.expect(tool.trace_id, tool.span_id)
                self._workers.expect(root.trace_id, root.span_id)
                with anyio.move_on_after(0.05):
                    await self._finished.wait()
            await pipeline.aflush(DEADLINE)
            self.ledger = pipeline.ledger()

    def finish(self) -> None:
        """No more."""
        self._finished.set()


async def test_a_broker_that_is_away_for_half_a_minute(
    kafka_clusters: Clusters, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    cluster = await anyio.to_thread.run_sync(kafka_clusters)
    broker = cluster.broker[0]
    async with crowd(cluster.bootstrap, kafka_prefix, tmp_path, core=process_core, seed=23) as workers:
        for _ in range(2):
            workers.start()
        for worker in workers.workers:
            await workers.scraper.ready(worker)
        agent = Agent(workers)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            await anyio.sleep(3.0)  # some work before
            await anyio.to_thread.run_sync(broker.kill)
            with late_program(workers) as late:
                await anyio.sleep(AWAY_S)
                await anyio.to_thread.run_sync(broker.start)
                out, _ = await anyio.to_thread.run_sync(partial(late.communicate, timeout=2 * DEADLINE))
                assert late.returncode == 0, out
            await anyio.sleep(3.0)  # and some after
            agent.finish()
        assert all(worker.process.poll() is None for worker in workers.workers), "a worker has ended"
        result = json.loads(out)
        for trace_id, span_id in result["ids"]:
            workers.expect(trace_id, span_id)
        found = await workers.judge()
        signs = await workers.signs()
    waits = sorted(found.waits_ms)
    sys.stdout.write(f"{signs}\nlongest from due to durable: {waits[-1]} ms\n")
    sys.stdout.write(f"agent: {agent.ledger}\nlate agent: {result['ledger']}\n")
    assert agent.ledger is not None
    assert agent.ledger.balances
    assert agent.ledger.acknowledged == agent.ledger.recorded > 0
    assert result["balances"]
    assert result["complete"]
    # a commit may fail or wait for the broker, and either way nothing of its time can be durable before the broker is back
    assert waits[-1] >= AWAY_S * 1000 * 0.9, "everything was durable in time: the broker was not away"


@contextmanager
def late_program(workers: Crowd) -> "Iterator[subprocess.Popen[str]]":
    """An agent that starts while there is no broker."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STARTS_WITHOUT_A_BROKER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PRELA_CONFIG": str(workers.config)},
    ) as program:
        try:
            yield program
        finally:
            program.kill()
