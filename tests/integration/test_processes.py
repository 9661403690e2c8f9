"""One trace over the processes of a pool, forked or spawned, and under all kinds of concurrency at once."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import msgspec
import pytest

from prela_stream.app import open_transport
from prela_stream.codec.spans import decode_batch, decode_resource, decode_span
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Trigger
from prela_stream.model.span import AFTER_END, REMOTE_PARENT, ItemKind, SpanData
from prela_stream.testing import render_tree
from tests.support.joined import joined

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, and workers run on Linux and macOS")

POOL = """
import multiprocessing, sys
import prela_stream as prela
from prela_stream.integrations import ContextProcessPoolExecutor


def double(number):
    with prela.get_tracer().span("inside", attributes={"number": number}):
        return 2 * number

if __name__ == "__main__":
    prela.init("pool")
    start = multiprocessing.get_context(sys.argv[1])
    with ContextProcessPoolExecutor(2, mp_context=start, initializer=prela.init) as pool:
        with prela.get_tracer().span("parent") as span:
            futures = [pool.submit(double, number) for number in range(3)]
            assert [future.result() for future in futures] == [0, 2, 4]
            assert list(pool.map(double, range(4), chunksize=2)) == [0, 2, 4, 6]
    print(span.trace_id)
"""
EVERYTHING_AT_ONCE = """
import asyncio, faulthandler, json, os, sys, threading
import prela_stream as prela
from prela_stream.tracing.carrying import ContextThreadPoolExecutor

faulthandler.dump_traceback_later(240, exit=True)
prela.init("busy", auto_instrument=False)
tracer = prela.get_tracer()

def checked(name, parent):
    span = tracer.span(name, attributes={"of": parent.name})
    assert span.parent_span_id == parent.span_id
    return span

def chunks(parent):
    with checked(f"stream {parent.name}", parent) as stream:
        for number in range(2):
            checked("chunk", stream).end()
            yield number
            assert prela.get_current_span() is stream

async def task(number, root, gate):
    with checked(f"task {number}", root) as span:
        await gate.wait()
        for _ in chunks(span) if number % 10 == 0 else range(2):
            await asyncio.sleep(0)
            checked("step", span).end()
        assert prela.get_current_span() is span

def thread(number):
    with tracer.span(f"thread {number}") as span:
        for _ in range(50):
            with checked("step", span) as step:
                checked("leaf", step).end()

def in_child(root):
    with tracer.span("forked") as span:
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        threads = [threading.Thread(target=thread, args=[1000 + number]) for number in range(4)]
        for one in threads:
            one.start()
        checked("step", span).end()
        for one in threads:
            one.join()
    prela.flush(60)
    ledger = prela.shutdown(60)
    return {"recorded": ledger.recorded, "acknowledged": ledger.acknowledged, "balances": ledger.balances}

async def main():
    threads = [threading.Thread(target=thread, args=[number]) for number in range(64)]
    with tracer.span("root") as root:
        gate = asyncio.Event()
        tasks = [asyncio.create_task(task(number, root, gate)) for number in range(10_000)]
        await asyncio.sleep(0)
        for one in threads:
            one.start()
        gate.set()
        read, write = os.pipe()
        pid = os.fork()  # 64 threads at work, 10,000 tasks open
        if pid == 0:
            status = 1
            try:
                os.write(write, json.dumps(in_child(root)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        await asyncio.gather(*tasks)
    for one in threads:
        await asyncio.to_thread(one.join)
    with os.fdopen(read, "rb") as pipe:
        child = json.loads(await asyncio.to_thread(pipe.read) or b"{}")
    assert os.waitpid(pid, 0)[1] == 0
    prela.flush(60)
    ledger = prela.shutdown(60)
    own = {"recorded": ledger.recorded, "acknowledged": ledger.acknowledged, "balances": ledger.balances}
    print(json.dumps({"parent": own, "child": child, "root": root.span_id, "trace": root.trace_id}))

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_a_pool_of_processes_makes_one_tree(method: str, tmp_path: Path) -> None:
    program = tmp_path / "pool.py"
    program.write_text(POOL, encoding="utf-8")
    with joined(tmp_path) as house:
        trace = await house.stored(await house.run(program, method))
    lines = Counter(render_tree(trace.spans).splitlines())
    assert lines == {"parent": 1, "  double": 3, "  _process_chunk": 2, "    inside": 7}
    assert (trace.decision.trigger, trace.decision.complete) == (Trigger.COMPLETE, True)
    assert len({span.resource.pid for span in trace.spans}) in (2, 3)


async def spans_in(settings: Settings) -> list[SpanData]:
    """Every span in the log."""
    found: list[SpanData] = []
    topic = settings.topics.spans
    async with open_transport(settings) as transport, await transport.consumer([topic]) as consumer:
        poll = await consumer.poll(timeout=5)
        consumer.resume(*poll.assigned)
        ends = {place: await consumer.end_offset(place) for place in poll.assigned}
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for record in (await consumer.poll(timeout=5)).records:
                batch = decode_batch(record.value or b"")
                resource = decode_resource(batch.resource)
                found += [
                    msgspec.structs.replace(decode_span(raw), resource=resource)
                    for head, raw in zip(batch.heads, batch.raws, strict=True)
                    if head.kind == ItemKind.SPAN
                ]
    return found


@pytest.mark.slow
async def test_tasks_threads_generators_and_a_fork_in_the_middle(tmp_path: Path) -> None:
    env = {"PRELA_DIRECTORY": str(tmp_path / "prela"), "PRELA_PIPELINE_MAX_QUEUE_ITEMS": "200000", "PRELA_STRICT": "1"}
    command = [sys.executable, "-c", EVERYTHING_AT_ONCE]
    with anyio.fail_after(270):
        done = await anyio.run_process(command, env={**os.environ, **env}, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    for ledger in (found["parent"], found["child"]):
        assert ledger["balances"]
        assert ledger["recorded"] == ledger["acknowledged"] > 0
    spans = await spans_in(load_settings(env=env))
    by_id = {span.span_id: span for span in spans}
    copies = [span for span in spans if span is not by_id[span.span_id]]
    assert all(copy == by_id[copy.span_id] for copy in copies), "sent by both processes"
    assert len(copies) <= load_settings(env=env).pipeline.batch_items, (
        "a fork repeats no more than the send that it cut off"
    )
    spans = list(by_id.values())
    assert len(spans) == 1 + 10_000 * 3 + 1_000 * 3 + (64 + 4) * 101 + 2
    wrong = [
        span.name
        for span in spans
        if "of" in span.attributes and by_id[str(span.parent_span_id)].name != span.attributes["of"]
    ]
    assert wrong == []
    children = Counter(span.parent_span_id for span in spans if not span.flags & (AFTER_END | REMOTE_PARENT))
    assert all(span.child_count == children[span.span_id] for span in spans)
    forked = next(span for span in spans if span.name == "forked")
    assert (forked.parent_span_id, forked.trace_id) == (found["root"], found["trace"])
    assert (forked.flags, forked.inject_ordinal) == (REMOTE_PARENT, None)
    assert {span.status for span in spans} == {"SUCCESS"}
