"""The whole demo as separate processes: what the agents recorded is decided and stored, and nothing stays behind."""

import sys
from pathlib import Path

import anyio
import pytest

from prela_stream import demo
from prela_stream.config import Settings, load_settings
from prela_stream.demo.agents import AGENTS

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(env={}, overrides={"directory": str(tmp_path / "prela")})


def processes_of(settings: Settings) -> list[int]:
    """Every process that was given these settings."""
    mark = f"PRELA_DIRECTORY={settings.directory}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


async def test_everything_recorded_is_decided_and_what_is_kept_is_stored(settings: Settings) -> None:
    stages: list[demo.Progress] = []
    runs = 2 * len(AGENTS)
    result = await demo.run(settings, runs=runs, seed=3, on_progress=stages.append)
    assert (result.runs, result.traces, result.undecided, result.incomplete) == (runs, runs, 0, 0)
    assert result.kept + result.dropped == runs
    assert result.ledger.balances
    assert result.ledger.acknowledged == result.ledger.recorded > result.spans > runs * 2
    assert result.by_trigger == {"complete": runs}
    assert sum(result.kept_by_policy.values()) == result.kept >= 4
    assert sum(result.dropped_by_policy.values()) == result.dropped
    assert {"errors", "no answer"} <= set(result.kept_by_policy)
    assert result.kept_spans > result.kept
    assert result.estimated_traces >= result.kept
    assert result.best_trace_id is not None
    assert result.input_tokens > result.output_tokens > 0
    assert [stages[0].stage, stages[-1].stage] == ["starting", "storing"]
    assert stages[-1].done == stages[-1].total == runs
    assert sorted({p.done for p in stages if p.stage == "agents"}) == list(range(runs + 1))
    assert processes_of(settings) == []


async def test_a_process_that_fails_ends_the_demo_with_what_it_said(settings: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "policies.toml"
    broken.write_text("mode = 'any'\n[[policy]]\ntype = 'psychic'\n")
    env = {"PRELA_DIRECTORY": settings.directory, "PRELA_POLICIES_FILE": str(broken)}
    with pytest.raises(demo.DemoError, match=r"the worker of the demo ended with exit code 2(?s:.*)psychic"):
        await demo.run(load_settings(env=env), runs=500)
    assert processes_of(settings) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_demo_that_is_cancelled_takes_its_processes_along(settings: Settings) -> None:
    alive: list[int] = []
    with anyio.CancelScope() as scope:

        def cancel_in_the_middle(progress: demo.Progress) -> None:
            if progress.stage == "agents" and progress.done == 3:
                alive.extend(processes_of(settings))
                scope.cancel()

        await demo.run(settings, runs=500, on_progress=cancel_in_the_middle)
    assert scope.cancelled_caught
    assert len(alive) == 4
    assert processes_of(settings) == []
