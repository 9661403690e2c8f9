"""The background pipeline in the life of a process: lazy start, stop, fork, exit; where files matter, on the local transport."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio
import pytest

from prela_stream.delivery.background import BackgroundPipeline
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.model.span import Resource
from prela_stream.transport.options import TopicOptions
from tests.support.items import make_item, span_id
from tests.support.memory_transport import MemoryTransport
from tests.support.processes import DEADLINE

ROOT = Path(__file__).parents[3]
TOPICS = TopicOptions(partitions=4)
QUICK = PipelineOptions(linger_ms=1, backoff_min_ms=1, backoff_max_ms=5, shutdown_timeout_s=DEADLINE)

PREAMBLE = """
import atexit, json, os, sys, threading, time
import anyio
from prela_stream.codec.spans import decode_batch
from prela_stream.model.span import Resource
from prela_stream.delivery.background import BackgroundPipeline
from prela_stream.delivery.options import PipelineOptions
from prela_stream.delivery.setup import PipelineSetup
from prela_stream.transport.base import TopicSpec
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions, TopicOptions
from tests.support.items import make_item
from tests.support.memory_transport import MemoryTransport

topics = TopicOptions(partitions=4)
local = LocalOptions(path=sys.argv[1])

async def prepare(transport):
    await transport.create_topics([TopicSpec(name=topics.spans, partitions=topics.partitions)])

def make_background(**options):
    made = lambda: LocalTransport(local)
    patient = PipelineOptions(**{"shutdown_timeout_s": 60.0, **options})  # a disk may hang for longer than the default
    return BackgroundPipeline(made, PipelineSetup(topics=topics, options=patient, resource=Resource, prepare=prepare))
"""


def run_python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a script with the preamble in a subprocess; a deadlock fails the test by the timeout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PRELA_STRICT": "0"}
    script = PREAMBLE + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, timeout=100, env=environment, check=False, cwd=path.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def stored(path: Path) -> list[int]:
    """Numbers of the span items in the log file, sorted, duplicates included."""

    async def read() -> list[int]:
        from prela_stream.codec.spans import decode_batch
        from prela_stream.model.span import ItemKind
        from prela_stream.transport.local import LocalTransport
        from prela_stream.transport.options import LocalOptions

        numbers: list[int] = []
        async with LocalTransport(LocalOptions(path=str(path))) as transport:
            consumer = await transport.consumer([TOPICS.spans])
            poll = await consumer.poll(timeout=5)
            consumer.resume(*poll.assigned)
            ends = {to: await consumer.end_offset(to) for to in poll.assigned}
            while any([await consumer.position(to) < end for to, end in ends.items()]):
                for record in (await consumer.poll(timeout=5)).records:
                    assert record.value is not None
                    heads = decode_batch(record.value).heads
                    numbers += [int.from_bytes(h.span_id or b"", "big") for h in heads if h.kind == ItemKind.SPAN]
            await consumer.aclose()
        return sorted(numbers)

    return anyio.run(read)


def make_setup(options: PipelineOptions = QUICK) -> PipelineSetup:
    return PipelineSetup(topics=TOPICS, options=options, resource=Resource)


def make_background(transport: MemoryTransport, options: PipelineOptions = QUICK) -> BackgroundPipeline:
    return BackgroundPipeline(lambda: transport, make_setup(options))


def thread_of(background: BackgroundPipeline) -> threading.Thread | None:
    """Its thread, if one was started."""
    return background._run.thread


def test_the_first_item_starts_the_thread_and_stop_ends_it() -> None:
    transport = MemoryTransport({TOPICS.spans: 4})
    background = make_background(transport)
    assert thread_of(background) is None
    background.record(*make_item(1))
    assert background.flush(DEADLINE).complete
    thread = thread_of(background)
    assert thread is not None
    assert thread.is_alive()
    assert background.ledger().acknowledged == 1
    background.record(*make_item(2))
    snapshot = background.stop(DEADLINE)
    assert snapshot.acknowledged == 2
    assert snapshot.balances
    assert transport.spans() == [span_id(1), span_id(2)]
    assert not thread.is_alive()
    background.record(*make_item(3))
    assert background.stop().dropped.shutdown == 1
    assert background.ledger().balances
    assert thread_of(background) is thread, "an item after the stop starts nothing"


def test_a_host_that_never_started_counts_nothing_and_stops() -> None:
    assert make_background(MemoryTransport({})).stop().recorded == 0


def test_stop_right_after_start_neither_hangs_nor_loses() -> None:
    for number in range(20):
        transport = MemoryTransport({TOPICS.spans: 4})
        background = make_background(transport)
        background.record(*make_item(number))
        assert background.stop(DEADLINE).acknowledged == 1


async def test_flush_from_the_agents_own_loop() -> None:
    background = make_background(MemoryTransport({TOPICS.spans: 4}))
    background.record(*make_item(1))
    assert (await background.aflush(DEADLINE)).complete
    background.stop(DEADLINE)


def test_a_transport_that_cannot_be_made_costs_the_items_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")

    def broken() -> MemoryTransport:
        msg = "no such driver"
        raise RuntimeError(msg)

    background = BackgroundPipeline(broken, make_setup())
    background.record(*make_item(1))
    assert background.flush(DEADLINE).pending == 0
    assert background.stop(DEADLINE).dropped.shutdown == 1
    assert [record.levelname for record in caplog.records if "no longer delivered" in record.getMessage()] == ["ERROR"]


def test_stop_with_a_transport_that_swallows_cancellation_leaves_the_thread_behind() -> None:
    release = threading.Event()

    class Stubborn(MemoryTransport):
        async def aclose(self) -> None:
            release.wait(DEADLINE)

    transport = Stubborn({TOPICS.spans: 4})
    transport.every_send = "hang"
    background = make_background(transport)
    background.record(*make_item(1))
    began = time.monotonic()
    snapshot = background.stop(0.1)
    assert time.monotonic() - began < DEADLINE / 4
    assert snapshot.balances
    assert snapshot.unknown + snapshot.dropped.shutdown == 1
    thread = background._run.thread
    release.set()
    assert thread is not None
    thread.join(DEADLINE)
    assert background.ledger() == snapshot, "results that the thread reports later are ignored"


def test_a_plain_exit_delivers(tmp_path: Path) -> None:
    run_python(
        "background = make_background()\nfor n in range(3000): background.record(*make_item(n))", tmp_path / "log.db"
    )
    assert stored(tmp_path / "log.db") == list(range(3000))


def test_what_a_thread_records_after_the_main_one_has_ended_is_delivered(tmp_path: Path) -> None:
    code = """
    background = make_background()
    background.record(*make_item(0))
    def later():
        threading.main_thread().join()
        for n in range(1, 2000): background.record(*make_item(n))
    threading.Thread(target=later).start()
    """
    run_python(code, tmp_path / "log.db")
    assert stored(tmp_path / "log.db") == list(range(2000))


def test_sys_exit_delivers(tmp_path: Path) -> None:
    code = """
    background = make_background()
    for n in range(100): background.record(*make_item(n))
    sys.exit()
    """
    run_python(code, tmp_path / "log.db")
    assert stored(tmp_path / "log.db") == list(range(100))


@pytest.mark.slow
def test_an_exit_with_a_hanging_transport_is_bounded_and_counts_what_was_lost(tmp_path: Path) -> None:
    code = """
    transport = MemoryTransport({topics.spans: 4})
    transport.every_send = "hang"
    options = PipelineOptions(linger_ms=1, send_timeout_s=90)
    background = BackgroundPipeline(lambda: transport, PipelineSetup(topics=topics, options=options, resource=Resource))
    def report():
        ledger = background.stop()
        counts = [ledger.balances, ledger.recorded, ledger.unknown + ledger.dropped.shutdown]
        print(json.dumps([counts, time.monotonic() - began]))
    for n in range(100): background.record(*make_item(n))
    while not background.ledger().in_flight: time.sleep(0.001)
    atexit.register(report)
    began = time.monotonic()
    """
    done = run_python(code, tmp_path / "log.db")
    counts, seconds = json.loads(done.stdout)
    assert counts == [True, 100, 100]
    assert "not every span was delivered" in done.stderr
    assert seconds < 20, "two seconds, and what a busy machine adds"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="file names there are Unicode")
def test_a_program_whose_file_name_is_not_utf8_keeps_its_spans(tmp_path: Path) -> None:
    program = os.path.join(os.fsencode(tmp_path), b"ag\xffent.py")  # noqa: PTH118 - bytes
    with open(program, "w") as script:  # noqa: PTH123 - bytes
        script.write(
            f"import prela_stream as p\np.init(directory={str(tmp_path / 'x')!r})\n"
            "with p.get_tracer().span('a'): pass\nprint(p.flush(60).acknowledged, p.ledger().balances)\n"
        )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path
    )
    assert done.stdout.split() == ["1", "True"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_fork_in_the_middle_of_sending_delivers_both_sides_once(tmp_path: Path) -> None:
    code = """
    import prela_stream.delivery.background
    prela_stream.delivery.background._PARK = 30.0  # a longer send is sent again
    background = make_background(linger_ms=1, batch_items=20)
    stop = threading.Event()
    recorded = [0]
    def load():
        while not stop.is_set() and recorded[0] < 10_000:
            background.record(*make_item(recorded[0]))
            recorded[0] += 1
            if recorded[0] % 50 == 0: time.sleep(0.001)
    loader = threading.Thread(target=load)
    loader.start()
    children = []
    for child in range(1, 6):
        while recorded[0] < child * 200: time.sleep(0.001)
        pid = os.fork()
        if pid == 0:
            assert background.ledger().recorded == 0
            for n in range(300): background.record(*make_item(child * 1_000_000 + n))
            ledger = background.stop(60)
            os._exit(0 if ledger.acknowledged == 300 and ledger.balances else 1)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    stop.set()
    loader.join()
    ledger = background.stop(60)
    print(json.dumps([statuses, recorded[0], ledger.acknowledged, ledger.balances]))
    """
    done = run_python(code, tmp_path / "log.db")
    statuses, recorded, acknowledged, balances = json.loads(done.stdout)
    assert statuses == [0] * 5, done.stderr
    assert acknowledged == recorded
    assert balances
    children = [child * 1_000_000 + n for child in range(1, 6) for n in range(300)]
    assert stored(tmp_path / "log.db") == list(range(recorded)) + children


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_child_of_multiprocessing_delivers_at_its_end(tmp_path: Path) -> None:
    code = """
    import multiprocessing
    background = make_background()
    background.record(*make_item(1))
    def work():
        background.record(*make_item(1000))
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    """
    run_python(code, tmp_path / "log.db")
    assert stored(tmp_path / "log.db") == [1, 1000]
