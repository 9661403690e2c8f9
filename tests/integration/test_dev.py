"""`prela-stream dev`: it keeps every trace unless a policy file is set, reports what it runs on, and prints each decision."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

import prela_stream as prela
from prela_stream.app import open_reader, run_dev
from prela_stream.config import Settings, load_settings
from prela_stream.model.decision import Decision
from prela_stream.sinks.query import TraceQuery
from tests.support.processes import DEADLINE

RUNS = 12
NONE_KEPT = '[[policy]]\nname = "never"\ntype = "probabilistic"\nprobability = 0.0\n'


def settings_in(folder: Path, **changes: object) -> Settings:
    given = {"directory": str(folder), "topics": {"partitions": 2}, "assembly": {"settle_ms": 10}, **changes}
    return load_settings(env={"PRELA_OTLP_LISTEN": "127.0.0.1:0"}, overrides=given)


async def decided(settings: Settings) -> tuple[list[Decision], int]:
    """The decisions that `dev` reports for RUNS new traces, and how many traces are in the store."""
    found: list[Decision] = []
    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        tasks.start_soon(partial(run_dev, settings, on_ready=ready.set, on_decision=found.append))
        with anyio.fail_after(DEADLINE):
            await ready.wait()
            async with prela.pipeline(settings):
                for number in range(RUNS):
                    with prela.get_tracer().span(f"run {number}"):
                        pass
            while len(found) < RUNS:
                await anyio.sleep(0.02)
            async with open_reader(settings) as reader:
                kept = sum(decision.kept for decision in found)
                while (totals := await reader.totals())["decisions"] < RUNS or totals["traces"] < kept:
                    await anyio.sleep(0.02)
                stored = len(await reader.list_traces(TraceQuery()))
        tasks.cancel_scope.cancel()
    return found, stored


async def test_it_keeps_every_trace(tmp_path: Path) -> None:
    found, stored = await decided(settings_in(tmp_path))
    assert stored == RUNS
    assert {(one.kept, one.policy, one.weight) for one in found} == {(True, "all", 1.0)}
    assert {one.summary.root_name for one in found} == {f"run {number}" for number in range(RUNS)}


async def test_a_policy_file_decides(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(NONE_KEPT, encoding="utf-8")
    found, stored = await decided(settings_in(tmp_path, policies_file=str(file)))
    assert (stored, {one.kept for one in found}) == (0, {False})


@pytest.mark.parametrize("otlp", [{}, {"listen": "127.0.0.1:0"}, {"grpc_listen": "127.0.0.1:0"}])
async def test_a_used_default_address_for_otlp_ends_nothing(tmp_path: Path, otlp: dict[str, str]) -> None:
    given = {"directory": str(tmp_path), "topics": {"partitions": 2}, "assembly": {"settle_ms": 10}, "otlp": otlp}
    with ExitStack() as stack:
        for port in (4317, 4318):
            with suppress(OSError):  # another process of this machine uses it
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        found, stored = await decided(load_settings(env={}, overrides=given))
    assert (len(found), stored) == (RUNS, RUNS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo terminals")
def test_one_line_about_what_it_runs_on_and_one_for_each_decision(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    env = {**os.environ, "PRELA_ASSEMBLY_SETTLE_MS": "10", "PRELA_OTLP_LISTEN": "127.0.0.1:0", "TERM": "dumb"}
    command = [sys.executable, "-m", "prela_stream", "dev"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=follower, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(follower)
        assert process.stderr is not None
        line = before = ""
        while "dev is ready" not in line:
            before, line = before + line, process.stderr.readline()
            assert line, f"it ended before it was ready: {before}"
        for part in (
            f"folder {tmp_path}/.prela;", f"store {tmp_path}/.prela/traces.db;", "keep every trace (version ",
        ):  # fmt: skip
            assert part in line
        agent = "import prela_stream as p; p.init('agent'); p.get_tracer().span('answer').end(); assert p.flush(60).complete"
        subprocess.run([sys.executable, "-c", agent], cwd=tmp_path, check=True)
        seen = ""
        while "\n" not in seen:
            seen += os.read(leader, 4_096).decode()
        assert " ok " in seen
        assert "answer" in seen
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    os.close(leader)
