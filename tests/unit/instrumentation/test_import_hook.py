"""What waits for a module runs once, after the module's own code, and leaves the import as it was."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

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


def test_it_runs_at_once_for_what_is_imported_already() -> None:
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


def test_what_is_called_off_does_not_run_and_the_finder_goes_with_the_last() -> None:
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


def test_a_module_that_fails_to_import_fails_as_before_and_may_be_tried_again(tmp_path: Path) -> None:
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


def test_what_cannot_be_found_is_not_found() -> None:
    when_imported("prela_there_is_no_such_module", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("prela_there_is_no_such_module")
    forget("prela_there_is_no_such_module")
