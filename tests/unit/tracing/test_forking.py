"""The handlers of a fork run in the order of `Step`, whatever the order in which they were registered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import prela_stream
from prela_stream.tracing import forking
from prela_stream.tracing.forking import Handlers, Step, at_fork


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of three handlers that were registered in the wrong order."""
    found: list[str] = []
    empty: dict[Step, list[Handlers]] = {step: [] for step in Step}
    monkeypatch.setattr(forking, "_handlers", empty)
    for step in (Step.BACKGROUND, Step.IDS, Step.CURRENT_SPAN):
        at_fork(
            step,
            before=lambda step=step: found.append(f"before {step.name}"),  # type: ignore[misc]  # a default binds the step
            in_parent=lambda step=step: found.append(f"parent {step.name}"),  # type: ignore[misc]
            in_child=lambda step=step: found.append(f"child {step.name}"),  # type: ignore[misc]
        )
    return found


def test_steps_run_backwards_before_the_fork_and_forwards_after_it(calls: list[str]) -> None:
    forking._before()
    forking._in_parent()
    forking._in_child()
    assert calls == [
        *("before BACKGROUND", "before CURRENT_SPAN", "before IDS"),
        *("parent IDS", "parent CURRENT_SPAN", "parent BACKGROUND"),
        *("child IDS", "child CURRENT_SPAN", "child BACKGROUND"),
    ]


def test_a_handler_that_raises_does_not_stop_the_others(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    at_fork(Step.IDS, in_child=lambda: 1 // 0)
    forking._in_child()
    assert calls == ["child IDS", "child CURRENT_SPAN", "child BACKGROUND"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_runs_them(calls: list[str]) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, " ".join(calls).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        in_child = pipe.read()
    os.waitpid(pid, 0)
    before = "before BACKGROUND before CURRENT_SPAN before IDS"
    assert in_child == f"{before} child IDS child CURRENT_SPAN child BACKGROUND"
    assert " ".join(calls) == f"{before} parent IDS parent CURRENT_SPAN parent BACKGROUND"


def test_every_step_has_a_handler_once_the_package_runs() -> None:
    program = (
        "import prela_stream.app.init\n"
        "from prela_stream.tracing import forking\n"
        "assert all(forking._handlers[step] for step in forking.Step), forking._handlers"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_module_registers_with_the_interpreter() -> None:
    package = Path(prela_stream.__file__).parent
    users = [path.relative_to(package) for path in package.rglob("*.py") if "register_at_fork(" in path.read_text()]
    assert users == [Path("tracing/forking.py")]
