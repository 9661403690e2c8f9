"""The metrics of an agent's delivery: how full the queue is, what was sent, and why items were dropped."""

import subprocess
import sys
from pathlib import Path

import pytest

import prela_stream
from prela_stream.delivery.ledger import Ledger
from tests.support.memory_transport import MemoryTransport
from tests.unit.delivery.pipelines import TOPICS, make_pipeline, options, until

TRACE = bytes(15) + b"\x01"


class Since:
    """What the metrics have counted since this object was made."""

    def __init__(self) -> None:
        self._before = prela_stream.metrics()

    def value(self, name: str, **labels: str) -> float:
        name = f"prela_agent_{name}"
        return prela_stream.metrics().value(name, **labels) - self._before.value(name, **labels)


async def test_items_batches_and_acknowledgements_are_counted() -> None:
    new = Since()
    async with make_pipeline(MemoryTransport({TOPICS.spans: 4})) as pipeline:
        for number in range(10):
            pipeline.record(TRACE, bytes([number]) * 100)
        await pipeline.aflush(30)
        assert new.value("items_total") == new.value("acknowledged_items_total") == 10
        batches = new.value("sends_total", outcome="acknowledged")
        assert 1 <= batches <= 10
        assert new.value("batch_items") == new.value("batch_bytes") == batches
        assert new.value("acknowledgement_latency_seconds") == batches
        assert new.value("queue_items") == new.value("queue_bytes") == 0
    assert new.value("items_total") == 10, "the end of a pipeline counts nothing twice"


async def test_the_queue_and_what_did_not_fit_into_it() -> None:
    new = Since()
    ledger = Ledger(options(max_queue_items=10, max_queue_bytes=10_000))
    for _ in range(15):
        ledger.queue.put(TRACE, b"x" * 50)
    assert (new.value("queue_items"), new.value("queue_bytes")) == (9, 450), "a tenth is reserved for roots"
    assert new.value("dropped_items_total", reason="queue_full") == 6
    ledger.close()
    assert new.value("queue_items") == 0
    assert new.value("dropped_items_total", reason="shutdown") == 9
    del ledger
    assert new.value("dropped_items_total") == new.value("items_total") == 15, "a counter never goes back"


async def test_failed_attempts_are_counted_by_their_result() -> None:
    new = Since()
    transport = MemoryTransport({TOPICS.spans: 4})
    transport.every_send = "fail"
    async with make_pipeline(transport, options(delivery_timeout_s=60)) as pipeline:
        pipeline.record(TRACE, b"item")
        await until(lambda: new.value("sends_total", outcome="failed") >= 2)
        transport.every_send = None
        assert (await pipeline.aflush(30)).acknowledged == 1


FORKS = """
import os, sys, threading, time
import prela_stream as prela

prela.init(service_name="agent", directory=sys.argv[1], auto_instrument=False)
for _ in range(3):
    with prela.span("work"):
        pass
assert prela.flush(60).complete
done = threading.Event()

def read():
    while not done.is_set():
        prela.metrics()

threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if not child:
        before = prela.metrics().value("prela_agent_items_total")
        with prela.span("work of the child"):
            pass
        after = prela.metrics().value("prela_agent_items_total")
        os._exit(0 if (before, after) == (0, 1) else 1)
    deadline = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            sys.exit("a child waits for a lock that a thread of its parent holds")
        time.sleep(0.005)
    if ended[1]:
        sys.exit("a child has counted what its parent did")
done.set()
for thread in threads:
    thread.join()
assert prela.metrics().value("prela_agent_items_total") == 3
prela.shutdown()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_counts_from_zero_and_waits_for_no_lock_of_its_parent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
