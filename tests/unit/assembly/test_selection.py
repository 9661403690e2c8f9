"""Which core a worker uses, and what is reported about it."""

import sys
from types import ModuleType

import pytest

from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import EXTENSION, CoreChoice, choose_core
from prela_stream.errors import ConfigurationError
from tests.support.cores import MAX_ITEM_BYTES, native_extension


def test_the_native_core_is_used_if_it_is_installed_and_can_be_forbidden() -> None:
    version = native_extension().__version__
    expected: dict[CoreChoice, tuple[str, str]] = {
        "auto": ("native", version),
        "native": ("native", version),
        "python": ("python", ""),
    }
    for choice, (name, its_version) in expected.items():
        kind = choose_core(choice)
        assert (kind.name, kind.version) == (name, its_version)
        assert kind.new(AssemblyOptions(), (), MAX_ITEM_BYTES).name == name


def test_without_the_extension_the_python_core_runs_and_native_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXTENSION, None)
    kind = choose_core("auto")
    assert (kind.name, str(kind)) == ("python", "python")
    assert "pip install 'prela-stream[fast]'" in kind.reason
    with pytest.raises(ConfigurationError, match=r"worker\.core is native.*pip install 'prela-stream\[fast\]'"):
        choose_core("native")


def test_an_extension_of_another_release_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType(EXTENSION)
    other.__dict__.update(INTERFACE=1, __version__="0.0.1")
    monkeypatch.setitem(sys.modules, EXTENSION, other)
    assert choose_core("auto").name == "python"
    with pytest.raises(ConfigurationError, match=r"prela-stream-native 0\.0\.1 has interface 1"):
        choose_core("native")
