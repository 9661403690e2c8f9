"""Run something when a module has been imported, without importing it: libraries that a program never uses cost it nothing.

`import anthropic` takes half a second. Patching at `init()` would charge that to every process that merely has the library
installed, and patching only what is already imported would miss every program that calls `init()` first. So a module
that is not there yet gets a finder at the front of `sys.meta_path`, which leaves the finding to the others and acts when the
module's own code has run.
"""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from prela_stream.errors import guard

_guard = guard("instrumentation.import_hook")


class _Finder:
    """Finds nothing itself: lends its place in the import to whoever waits for the module."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[], None]] = {}
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.waiting or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        with _guard:
            self._act_after_import(spec, fullname)
        return spec

    def _act_after_import(self, spec: ModuleSpec | None, name: str) -> None:
        loader = spec.loader if spec is not None else None
        if loader is None:
            return
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            action = self.waiting.pop(name, None)
            with _guard:
                del loader.exec_module
                if action is not None:
                    action()

        # On the instance: the loader keeps its class, so that whoever asks it for sources or resources finds them.
        loader.exec_module = exec_module  # type: ignore[method-assign]


_finder = _Finder()


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call `action` now if the top-level module `name` is imported, else right after its first import.

    An error of the action never reaches the import; it is counted and logged. A second call for the same module replaces the
    first one's action while that waits.
    """
    if name in sys.modules:
        with _guard:
            action()
        return
    _finder.waiting[name] = action
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def forget(name: str) -> None:
    """Call off what waits for this module."""
    _finder.waiting.pop(name, None)
    if not _finder.waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
