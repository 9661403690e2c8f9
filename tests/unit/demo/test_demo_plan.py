"""What the demo runs, what its tools do, and how its settings reach other processes."""

import random
from pathlib import Path

import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.config import Settings, load_settings
from prela_stream.demo.agents import AGENTS, plan
from prela_stream.demo.show import POLICIES_FILE, environment_of
from prela_stream.demo.tools import ToolError, calculator, lookup_order, search
from prela_stream.sampling.policyset import load_policies


def test_a_plan_is_repeatable_and_has_every_kind() -> None:
    assert plan(60, 1) == plan(60, 1)
    assert [run.kind for run in plan(60, 1)] != [run.kind for run in plan(60, 2)]
    assert {run.kind for run in plan(len(AGENTS), 5)} == set(AGENTS)
    assert len(plan(3, 1)) == 3


def test_shares_of_the_kinds_are_kept() -> None:
    assert sum(share for share, _, _ in AGENTS.values()) == pytest.approx(1.0)
    kinds = [run.kind for run in plan(4000, 1)]
    for kind, (share, _, _) in AGENTS.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.03)


def test_settings_survive_the_way_through_the_environment(tmp_path: Path) -> None:
    assembly = AssemblyOptions(settle_ms=123)
    settings = load_settings(
        env={}, overrides={"directory": str(tmp_path), "capture_content": False, "sample_rate": 0.5}
    )
    settings = Settings(
        **{name: getattr(settings, name) for name in Settings.__struct_fields__} | {"assembly": assembly}
    )
    assert load_settings(env=environment_of(settings)) == settings


def test_the_demos_policies_are_valid() -> None:
    names = [policy.name for policy in load_policies(POLICIES_FILE.read_text(), source="demo").policies]
    assert names == ["errors", "slow", "runaway", "no answer", "cancelled", "rest"]


async def test_the_calculator_calculates_and_refuses_what_it_cannot() -> None:
    rng = random.Random(1)
    assert await calculator(rng, {"expression": "12 * 3 + 4"}) == "40"
    with pytest.raises(ToolError, match="only sums and products"):
        await calculator(rng, {"expression": "__import__('os').getpid()"})


async def test_searches_fail_now_and_then_and_orders_never() -> None:
    failed = 0
    for seed in range(60):
        try:
            assert "lithium" in await search(random.Random(seed), {"query": "lithium"})
        except ToolError:
            failed += 1
        assert "order 7: shipped" in await lookup_order(random.Random(seed), {"order_id": 7})
    assert 0 < failed < 15
