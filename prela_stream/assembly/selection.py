"""Which core a worker uses: the native one if its extension is installed and fits this release, else the Python one."""

import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Final, Literal

from prela_stream.assembly.base import Core
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.errors import ConfigurationError

CoreChoice = Literal["auto", "native", "python"]
EXTENSION: Final = "prela_stream_native"
_INSTALL: Final = "pip install 'prela-stream[fast]'"
NewCore = Callable[[AssemblyOptions, Iterable[str], int], Core]


class CoreKind:
    """The core that runs, and why.

    Args:
        name: `native` or `python`.
        version: The version of the extension; empty for the Python core.
        reason: Why this one.
        new: Makes a core from its options, the attribute keys that the policies declared, and the most bytes of an item and its
            resource together (a larger item could not be written as kept).
    """

    __slots__ = ("name", "new", "reason", "version")

    def __init__(self, name: str, version: str, reason: str, new: NewCore) -> None:
        self.name = name
        self.version = version
        self.reason = reason
        self.new = new

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def choose_core(choice: CoreChoice) -> CoreKind:
    """The core for this choice of `worker.core`.

    Raises:
        ConfigurationError: it is `native`, and the extension cannot be used.
    """
    if choice == "python":
        return _python("worker.core is python")
    extension = _import()
    if isinstance(extension, str):
        if choice == "native":
            msg = f"worker.core is native, and the native core cannot be used: {extension}"
            raise ConfigurationError(msg)
        return _python(extension)
    return _native(extension, "worker.core is native" if choice == "native" else "the extension is installed")


def _import() -> ModuleType | str:
    """The extension, or why it cannot be used and what to do."""
    from prela_stream.assembly.native_core import INTERFACE

    try:
        extension = importlib.import_module(EXTENSION)
    except ModuleNotFoundError as error:
        if error.name != EXTENSION:
            return f"its import failed: {error}"
        return f"the extension is not installed ({_INSTALL})"
    except ImportError as error:
        return f"its import failed: {error}"
    found = getattr(extension, "INTERFACE", None)
    if found != INTERFACE:
        return (
            f"prela-stream-native {getattr(extension, '__version__', '(unknown version)')} has interface {found}, and this "
            f"release uses interface {INTERFACE}. Install the version that belongs to it: {_INSTALL} --upgrade"
        )
    return extension


def _native(extension: ModuleType, reason: str) -> CoreKind:
    from prela_stream.assembly.native_core import NativeCore

    return CoreKind(
        "native",
        str(extension.__version__),
        reason,
        lambda options, reads, max_item_bytes: NativeCore(extension, options, sorted(reads), max_item_bytes),
    )


def _python(reason: str) -> CoreKind:
    from prela_stream.assembly.python_core import PythonCore

    return CoreKind(
        "python", "", reason, lambda options, reads, max_item_bytes: PythonCore(options, sorted(reads), max_item_bytes)
    )
