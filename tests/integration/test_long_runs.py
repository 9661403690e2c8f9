"""Agents that die, wait, take long or are left open: what real processes leave in the store. Every time is shortened."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
import pytest

from prela_stream.app import open_reader
from prela_stream.config import Settings, load_settings
from prela_stream.errors import PrelaError
from prela_stream.model.decision import Trigger
from prela_stream.model.span import SpanStatus, SpanType
from prela_stream.sinks.query import StoredTrace
from prela_stream.tracing.open_spans import CANCELLED_BY
from tests.support.joined import NEVER
from tests.support.processes import DEADLINE, Service

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers run on Linux and macOS")

SHORT = {
    "PRELA_PIPELINE_HEARTBEAT_MS": "50",
    "PRELA_PIPELINE_LINGER_MS": "5",
    "PRELA_PIPELINE_SHUTDOWN_TIMEOUT_S": str(DEADLINE),
    "PRELA_ASSEMBLY_SETTLE_MS": "50",
    "PRELA_ASSEMBLY_ROOT_WAIT_MS": NEVER,
    "PRELA_ASSEMBLY_IDLE_MS": NEVER,
    "PRELA_ASSEMBLY_LOST_MS": NEVER,
    "PRELA_WORKER_COMMIT_INTERVAL_MS": "50",
    "PRELA_WORKER_TICK_MIN_MS": "20",
    "PRELA_WORKER_TICK_MAX_MS": "100",
    "PRELA_TOPICS_PARTITIONS": "2",
    "PRELA_STRICT": "0",
}
"""A live process may be late with anything on a busy machine, so only tests about timeouts have short ones."""
LOST = {"PRELA_ASSEMBLY_LOST_MS": "3000"}
GIVES_UP = {"PRELA_ASSEMBLY_ROOT_WAIT_MS": "400", "PRELA_ASSEMBLY_IDLE_MS": "400"}
ERRORS_ONLY = '[[policy]]\nname = "failed"\ntype = "status"\nstatuses = ["ERROR"]\n'
EVERYTHING = '[[policy]]\nname = "all"\ntype = "always"\n'


class House:
    """A folder with a log and a store, and `prela-stream dev` at work on them."""

    def __init__(
        self,
        folder: Path,
        policies: str,
        monkeypatch: pytest.MonkeyPatch,
        waits: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        (folder / "policies.toml").write_text(policies, encoding="utf-8")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PRELA_POLICIES_FILE", str(folder / "policies.toml"))
        for name, value in {**SHORT, **waits}.items():
            monkeypatch.setenv(name, value)
        self.settings: Settings = load_settings()
        self.service = Service("dev", log=folder / "dev.log")
        self.agents: list[subprocess.Popen[str]] = []

    def agent(self, program: str) -> subprocess.Popen[str]:
        """Run a program in another process; it may print lines and wait for lines."""
        preamble = "import sys\nimport prela_stream as prela\nprela.init('agent')\ntracer = prela.get_tracer()\n"
        process = subprocess.Popen(
            [sys.executable, "-c", preamble + textwrap.dedent(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.agents.append(process)
        return process

    async def stored(self, root: str) -> StoredTrace:
        """The kept trace with this root, as soon as there is one."""
        with anyio.fail_after(DEADLINE):
            while (found := await self.find(root)) is None:
                assert self.service.process.poll() is None, self.service.output()
                await anyio.sleep(0.02)
        return found

    async def find(self, root: str) -> StoredTrace | None:
        """The kept trace with this root, if there is one by now."""
        try:
            async with open_reader(self.settings) as reader:
                for row in await reader.tail(0):
                    if row.root_name == root:
                        return await reader.get(row.trace_id)
        except PrelaError:  # the store is not made yet
            pass
        return None

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `prela-stream`."""
        return subprocess.run(
            [sys.executable, "-m", "prela_stream", *arguments], capture_output=True, text=True, timeout=60, check=True
        )

    def close(self) -> None:
        """End every process."""
        processes: list[subprocess.Popen[Any]] = [*self.agents, self.service.process]
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def errors_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Keeps only failed traces; a process without heartbeats is lost soon."""
    house = House(tmp_path, ERRORS_ONLY, monkeypatch, LOST)
    yield house
    house.close()


@pytest.fixture
def hasty_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Keeps everything, and soon decides a trace that misses a span."""
    house = House(tmp_path, EVERYTHING, monkeypatch, GIVES_UP)
    yield house
    house.close()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Keeps everything."""
    house = House(tmp_path, EVERYTHING, monkeypatch)
    yield house
    house.close()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the agent prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def send(process: subprocess.Popen[str], text: str) -> None:
    """Send the agent a line."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def states(trace: StoredTrace) -> dict[str, SpanStatus]:
    """Name and status of each span."""
    return {span.name: span.status for span in trace.spans}


async def test_an_agent_that_is_killed_is_noticed_and_its_open_spans_are_shown(errors_house: House) -> None:
    agent = errors_house.agent(
        """
        with tracer.span("job"), tracer.span("agent", prela.SpanType.AGENT):
            with tracer.span("search", prela.SpanType.TOOL):
                pass
            print(prela.flush(60).acknowledged, flush=True)
            sys.stdin.readline()
        """
    )
    assert int(line(agent)) >= 3, "two STARTs and a span"
    agent.send_signal(signal.SIGKILL)
    trace = await errors_house.stored("job")
    assert trace.row.trigger == Trigger.LOST
    assert not trace.row.complete
    assert trace.decision.policy == "failed"
    assert states(trace) == {"job": SpanStatus.PENDING, "agent": SpanStatus.PENDING, "search": SpanStatus.SUCCESS}
    shown = errors_house.cli("traces", "show", trace.row.trace_id).stdout
    assert shown.count("PENDING") == 2
    assert "lost" in shown
    as_json: dict[str, Any] = json.loads(errors_house.cli("traces", "show", trace.row.trace_id, "--json").stdout)
    assert "PENDING" in json.dumps(as_json)
    assert "lost" in json.dumps(as_json)


async def test_a_long_agent_is_not_decided_before_its_end(hasty_house: House) -> None:
    agent = hasty_house.agent(
        """
        with tracer.span("long agent", prela.SpanType.AGENT):
            tracer.span("first step").end()
            print("working", flush=True)
            sys.stdin.readline()
        with tracer.span("other"): pass
        print("done", flush=True)
        sys.stdin.readline()
        """
    )
    assert line(agent) == "working"
    # A trace without heartbeats is decided by its timeout: its root has ended and a child is missing.
    gone = hasty_house.agent(
        """
        with tracer.span("given up") as span:
            child = tracer.start_span("never ends")
        del child
        print("gone", flush=True)
        sys.stdin.readline()
        """
    )
    assert line(gone) == "gone"
    given_up = await hasty_house.stored("given up")
    assert given_up.row.trigger == Trigger.ROOT_WAIT
    assert await hasty_house.find("long agent") is None
    send(agent, "go on")
    trace = await hasty_house.stored("long agent")
    assert (trace.row.trigger, trace.row.complete) == (Trigger.COMPLETE, True)
    assert {span.name for span in trace.spans} == {"long agent", "first step"}


async def test_a_suspended_trace_waits_and_is_complete_after_the_wait(hasty_house: House) -> None:
    agent = hasty_house.agent(
        """
        span = tracer.start_span("approval")
        span.suspend(until=4_000_000_000_000_000_000, reason="a person has to agree")
        print(prela.flush(60).acknowledged, flush=True)
        sys.stdin.readline()
        span.resume()
        span.end()
        print("done", flush=True)
        sys.stdin.readline()
        """
    )
    line(agent)
    other = hasty_house.agent(
        """
        with tracer.span("given up"):
            child = tracer.start_span("never ends")
        print("gone", flush=True)
        sys.stdin.readline()
        """
    )
    line(other)
    assert (await hasty_house.stored("given up")).row.trigger == Trigger.ROOT_WAIT
    assert await hasty_house.find("approval") is None
    send(agent, "go on")
    trace = await hasty_house.stored("approval")
    assert (trace.row.trigger, trace.row.complete) == (Trigger.COMPLETE, True)
    (span,) = trace.spans
    assert [event.name for event in span.events] == ["suspend", "resume"]
    assert span.events[0].attributes["prela.suspend.reason"] == "a person has to agree"


async def test_what_is_open_at_the_exit_is_cancelled_and_delivered(house: House) -> None:
    agent = house.agent(
        """
        import threading
        def work():
            with tracer.span("in a thread", prela.SpanType.TOOL):
                started.set()
                threading.Event().wait()
        started = threading.Event()
        root = tracer.start_span("left open")
        child = tracer.start_span("its child", parent=root)
        decided = tracer.start_span("status set", parent=child)
        decided.set_status("ERROR", "it failed")
        threading.Thread(target=work, daemon=True).start()
        started.wait()
        """
    )
    assert agent.wait(DEADLINE) == 0
    trace = await house.stored("left open")
    assert (trace.row.trigger, trace.row.complete) == (Trigger.COMPLETE, True)
    assert states(trace) == {
        "left open": SpanStatus.CANCELLED,
        "its child": SpanStatus.CANCELLED,
        "status set": SpanStatus.ERROR,
    }
    by_name = {span.name: span for span in trace.spans}
    assert {span.attributes[CANCELLED_BY] for span in trace.spans} == {"exit"}
    assert by_name["its child"].status_message == "the process ended while this span was open"
    assert by_name["status set"].status_message == "it failed"
    thread = await house.stored("in a thread")
    assert states(thread) == {"in a thread": SpanStatus.CANCELLED}
    assert thread.spans[0].span_type is SpanType.TOOL


async def test_a_forked_child_leaves_its_parents_open_spans_alone(house: House) -> None:
    agent = house.agent(
        """
        import os, threading
        with tracer.span("parent") as root:
            beside = tracer.start_span("beside")
            pid = os.fork()
            if pid == 0:
                own = tracer.start_span("of the child")
                sys.exit(0)  # runs atexit
            assert os.waitpid(pid, 0)[1] == 0
            beside.end()
        """
    )
    assert agent.wait(DEADLINE) == 0
    trace = await house.stored("parent")
    assert states(trace)["parent"] is SpanStatus.SUCCESS
    assert states(trace)["beside"] is SpanStatus.SUCCESS
    assert states(trace)["of the child"] is SpanStatus.CANCELLED
    assert len(trace.spans) == 3
