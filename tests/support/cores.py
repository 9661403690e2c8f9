"""The cores of a worker, for tests that have to hold on each of them."""

import importlib
import importlib.util
import os
from types import ModuleType

import pytest

from prela_stream.assembly import decided, native_core
from prela_stream.assembly.base import Applied, Core, ReadyTrace
from prela_stream.assembly.selection import EXTENSION, CoreKind, choose_core
from prela_stream.model.trace import Trace

CORES = ("python", "native")
MAX_ITEM_BYTES = 100_000
_QUICK_CORES = CORES[-1:] if importlib.util.find_spec(EXTENSION) or os.environ.get("CI") == "true" else CORES[:1]


def native_extension() -> ModuleType:
    """The extension of the native core; skips the test without it, and fails it where `CI=true`."""
    try:
        return importlib.import_module("prela_stream_native")
    except ImportError:
        reason = "the native core is not built, so nothing is tested on it: install cargo and run `make native`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def core_named(name: str) -> CoreKind:
    """The core with this name; see `native_extension`."""
    if name == "native":
        native_extension()
        return choose_core("native")
    return choose_core("python")


@pytest.fixture(params=CORES, scope="session")
def core(request: pytest.FixtureRequest) -> CoreKind:
    """Each core."""
    return core_named(request.param)


@pytest.fixture(params=CORES if os.environ.get("TEST_CORES") == "all" else _QUICK_CORES, scope="session")
def process_core(request: pytest.FixtureRequest) -> str:
    """The `worker.core` of worker processes in suites of minutes: the native core, and both with `TEST_CORES=all`.

    Without cargo it is the Python core.
    """
    return core_named(request.param).name


def add(core: Core, value: bytes, offset: int, *, replay: bool = False) -> Applied:
    """Apply the value of a record in as many steps as it takes."""
    applied = core.add(value, offset, replay=replay)
    while applied is None:
        applied = core.add_more()
    return applied


def checked(ready: ReadyTrace) -> ReadyTrace:
    """The trace with checked bodies, in as many steps as it takes."""
    steps = ready.with_checked_bodies()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: ReadyTrace = done.value
            return found


def trace_of(ready: ReadyTrace) -> Trace:
    """The trace, some of whose spans are readable."""
    assert ready.trace is not None
    return ready.trace


def expire(core: Core) -> list[bytes]:
    """`Core.expire` until it is done; all ids that it returned."""
    found: list[bytes] = []
    while (early := core.expire()) is not None:
        found += early
    return found


def end_load(core: Core) -> None:
    """`Core.end_load` until it is done."""
    while core.end_load():
        pass


def decided_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let each core touch so many remembered decisions in one call."""
    monkeypatch.setattr(decided, "STEP", step)
    monkeypatch.setattr(native_core, "DECIDED_STEP", step)
