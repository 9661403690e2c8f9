"""Runs an action after a module is imported, without importing it, so that a library which a program never uses costs nothing.

`import anthropic` takes half a second. Patching in `init()` would charge that to every process in which the library is only
installed. Patching only what is imported already would miss every program that calls `init()` first. So for a module that is not
imported yet, a finder is put at the front of `sys.meta_path`. It leaves the finding to the others and acts after the module's own
code has run.

A name in `sys.modules` may belong to a module whose code is still running in another thread. Nothing here acts on such a module:
it waits for the import, which holds the lock of the module.
"""

import importlib
import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from prela_stream.errors import guard

_guard = guard("instrumentation.import_hook")
_POLL_S = 0.01


class _Finder:
    """Finds no module. It uses its place in the import to run an action after the module's code."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[], None]] = {}
        self._searching: set[tuple[int, str]] = set()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        search = (threading.get_ident(), fullname)
        if fullname not in self.waiting or search in self._searching:
            return None
        self._searching.add(search)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(search)
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
            with _guard:
                del loader.exec_module
            self.act(name)

        # On the instance, so that the loader keeps its class for code that asks it for sources or resources.
        loader.exec_module = exec_module  # type: ignore[method-assign]

    def act(self, name: str) -> None:
        """Run what waits for this module, once."""
        action = self.waiting.pop(name, None)
        if action is not None:
            with _guard:
                action()


_finder = _Finder()


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call `action` now if the module `name` is imported, else right after its first import.

    If another thread imports it at this moment, this call waits for the end of that import. If this thread does, because the
    module's own code led here, `action` runs in another thread when the import has ended. An error of the action never reaches
    the import; it is counted and logged. A second call for the same module replaces the action of the first one while that waits.
    """
    _finder.waiting[name] = action  # before sys.modules is checked, or an import that starts in between would be missed
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if name not in sys.modules:
        return
    if is_importing(name):
        with _guard:
            _wait_for_import(name)
    if name not in sys.modules:
        return  # its import has failed
    if is_importing(name):
        threading.Thread(target=_act_later, args=(name,), name=f"prela-import-{name}", daemon=True).start()
    else:
        _finder.act(name)
        _remove_idle_finder()


def is_importing(name: str) -> bool:
    """Whether the code of this module is running: it is in `sys.modules`, but its names may be missing."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def forget(name: str) -> None:
    """Cancel what waits for this module."""
    _finder.waiting.pop(name, None)
    _remove_idle_finder()


def _remove_idle_finder() -> None:
    if not _finder.waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def _wait_for_import(name: str) -> None:
    """Wait for the lock of the module, without importing it. Returns at once if this thread holds it, or if that deadlocks.

    `import name` would wait as well, but if the import in the other thread fails it would start another one here. The function is
    what CPython's `import` statement itself calls for a module that another thread is importing (import_ensure_initialized).
    """
    wait = getattr(importlib._bootstrap, "_lock_unlock_module", None)  # private, and there from 3.3 to 3.14
    if wait is not None:
        wait(name)


def _act_later(name: str) -> None:
    with _guard:
        _wait_for_import(name)
        while is_importing(name):  # only without the function above
            time.sleep(_POLL_S)
        if name in sys.modules:  # else the import failed, and the next one acts
            _finder.act(name)
