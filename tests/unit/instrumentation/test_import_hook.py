"""An action that waits for a module runs once, after the module's own code, and leaves the import as it was."""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prela_stream import telemetry
from prela_stream.instrumentation import import_hook
from prela_stream.instrumentation.import_hook import forget, when_imported

NAME = "prela_import_hook_probe"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{NAME}.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    forget(NAME)
    sys.modules.pop(NAME, None)


def test_it_runs_once_after_the_modules_own_code() -> None:
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(sys.modules[NAME].VALUE))
    assert NAME not in sys.modules
    assert seen == []
    module = importlib.import_module(NAME)
    assert seen == [7]
    importlib.reload(module)
    assert seen == [7]


def test_it_runs_now_if_the_module_is_imported_already() -> None:
    importlib.import_module(NAME)
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(sys.modules[NAME].VALUE))
    assert seen == [7]


def test_the_import_is_the_same_as_without_it() -> None:
    plain = importlib.import_module(NAME)
    del sys.modules[NAME]
    when_imported(NAME, lambda: None)
    hooked = importlib.import_module(NAME)
    assert type(hooked.__loader__) is type(plain.__loader__)
    assert "exec_module" not in vars(hooked.__loader__)
    assert hooked.__spec__ is not None
    assert plain.__spec__ is not None
    assert hooked.__spec__.origin == plain.__spec__.origin


def test_a_cancelled_action_does_not_run_and_the_idle_finder_is_removed() -> None:
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(1))
    assert import_hook._finder in sys.meta_path
    forget(NAME)
    importlib.import_module(NAME)
    assert seen == []
    assert import_hook._finder not in sys.meta_path


def test_its_error_does_not_reach_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")
    before = telemetry.SWALLOWED.value("instrumentation.import_hook", "ZeroDivisionError")

    def fail() -> None:
        raise ZeroDivisionError

    when_imported(NAME, fail)
    assert importlib.import_module(NAME).VALUE == 7
    assert telemetry.SWALLOWED.value("instrumentation.import_hook", "ZeroDivisionError") == before + 1


def test_a_failing_import_fails_as_before_and_can_be_repeated(tmp_path: Path) -> None:
    source = tmp_path / f"{NAME}.py"
    source.write_text("raise LookupError('not today')\n")
    importlib.invalidate_caches()
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(1))
    with pytest.raises(LookupError, match="not today"):
        importlib.import_module(NAME)
    assert seen == []
    source.write_text("VALUE = 12345\n")
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert seen == [1]


def test_a_missing_module_stays_missing() -> None:
    when_imported("prela_there_is_no_such_module", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("prela_there_is_no_such_module")
    forget("prela_there_is_no_such_module")


SLOW = """
import threading
import prela_import_hook_control as control
control.started.set()
control.go_on.wait(30)
if control.fails:
    raise LookupError("not today")
VALUE = 7
"""


class Control(ModuleType):
    """What the slow module asks while its code runs."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__("prela_import_hook_control")
        self.started, self.go_on, self.fails = threading.Event(), threading.Event(), fails


@contextmanager
def being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> Iterator[Control]:
    """A block that begins while another thread is in the middle of the module's import."""
    (tmp_path / f"{NAME}.py").write_text(SLOW)
    importlib.invalidate_caches()
    control = Control(fails=fails)
    monkeypatch.setitem(sys.modules, control.__name__, control)

    def user() -> None:
        with suppress(LookupError):
            importlib.import_module(NAME)

    thread = threading.Thread(target=user)
    thread.start()
    assert control.started.wait(30)
    try:
        yield control
    finally:
        control.go_on.set()
        thread.join()


def test_it_waits_for_an_import_in_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    with being_imported(tmp_path, monkeypatch) as control:
        threading.Timer(0.05, control.go_on.set).start()
        when_imported(NAME, lambda: seen.append(sys.modules[NAME].VALUE))
        assert seen == [7]
    assert import_hook._finder not in sys.meta_path


def test_without_the_lock_it_acts_in_another_thread_after_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted = threading.Event()
    seen: list[int] = []

    def act() -> None:
        seen.append(sys.modules[NAME].VALUE)
        acted.set()

    monkeypatch.setattr(import_hook, "_wait_for_import", lambda _: None)
    with being_imported(tmp_path, monkeypatch) as control:
        when_imported(NAME, act)
        assert seen == []
        control.go_on.set()
        assert acted.wait(30)
    assert seen == [7]


def test_an_import_that_fails_in_another_thread_is_not_repeated_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with being_imported(tmp_path, monkeypatch, fails=True) as control:
        threading.Timer(0.05, control.go_on.set).start()
        when_imported(NAME, lambda: seen.append(1))
    assert seen == []
    control.fails = False
    importlib.import_module(NAME)
    assert seen == [1]


def test_called_by_the_modules_own_code_it_acts_after_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acted = threading.Event()
    seen: list[int] = []

    def act() -> None:
        seen.append(sys.modules[NAME].VALUE)
        acted.set()

    control = ModuleType("prela_import_hook_control")
    vars(control)["register"] = lambda: when_imported(NAME, act)
    monkeypatch.setitem(sys.modules, control.__name__, control)
    (tmp_path / f"{NAME}.py").write_text("import prela_import_hook_control as control\ncontrol.register()\nVALUE = 7\n")
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert acted.wait(30)
    assert seen == [7]


def test_a_search_in_another_thread_does_not_hide_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """`find_spec` of one thread runs while another thread imports the same module."""
    searching, go_on = threading.Event(), threading.Event()
    find_spec = importlib.util.find_spec
    searcher = threading.Thread(target=lambda: import_hook._finder.find_spec(NAME))

    def slow_find_spec(name: str, package: str | None = None) -> Any:
        if threading.current_thread() is searcher:
            searching.set()
            go_on.wait(30)
        return find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", slow_find_spec)
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(1))
    searcher.start()
    assert searching.wait(30)
    importlib.import_module(NAME)
    go_on.set()
    searcher.join()
    assert seen == [1]


def test_a_module_without_a_spec_is_imported() -> None:
    sys.modules[NAME] = made = ModuleType(NAME)
    assert made.__spec__ is None
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(1))
    assert seen == [1]
