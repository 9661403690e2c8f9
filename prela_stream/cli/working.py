"""`prela-stream worker` without typer, whose import takes a sixth of the time until a worker is ready.

A command line with only the usual options is read here. Every other one, wrong ones included, is left to typer.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prela_stream.config import Settings

_COMMAND: Final = "worker"
_SHARED: Final = {"--config": "config", "--dir": "directory", "--transport": "transport"}
_OWN: Final = {**_SHARED, "--http": "http"}
_COMPLETION: Final = "_PRELA_STREAM_COMPLETE"
"""Set by the shell when it asks for completions."""


def worker_start(arguments: Sequence[str]) -> Callable[[], None] | None:
    """What starts the worker of this command line; None if typer has to read it."""
    if sys.platform == "win32" or _COMPLETION in os.environ or _COMMAND not in arguments:
        return None
    found = read_arguments(arguments)
    return None if found is None else partial(_start, found)


def read_arguments(arguments: Sequence[str]) -> dict[str, str] | None:
    """The options of a worker by name, those before the command included; None if there is anything unusual."""
    before: dict[str, str] = {}
    own: dict[str, str] = {}
    given, known = before, _SHARED
    words = iter(arguments)
    for word in words:
        if word == _COMMAND and given is before:
            given, known = own, _OWN
        elif word == "--json" and given is own and "as_json" not in own:
            own["as_json"] = "true"
        elif word in known and known[word] not in given:
            value = next(words, "")
            if not value.isprintable() or not value or value.startswith("-"):
                return None
            given[known[word]] = value
        else:
            return None
    return {**before, **own} if given is own else None


def _start(given: dict[str, str]) -> None:
    from prela_stream.cli.faults import output_closed, run_and_exit

    gc.disable()  # what is imported stays; `rare_collections` enables it

    def run() -> None:
        from prela_stream.config import load_settings

        overrides: dict[str, str] = {key: given[key] for key in ("directory", "transport") if key in given}
        settings = exposing(load_settings(given.get("config"), overrides=overrides), given.get("http"))
        with output_closed():
            run_worker_until_stopped(settings, as_json="as_json" in given)

    run_and_exit(run)


def exposing(settings: Settings, http: str | None) -> Settings:
    """The settings with the address of `--http`, if it was given."""
    if http is None:
        return settings
    import msgspec

    return msgspec.structs.replace(settings, http=msgspec.structs.replace(settings.http, listen=http))


def run_worker_until_stopped(settings: Settings, *, as_json: bool) -> None:
    """Run a worker until SIGTERM or Ctrl-C."""
    from prela_stream.app.services import run_worker
    from prela_stream.cli.reporting import Reports
    from prela_stream.cli.running import run_until_stopped

    reports = Reports("worker", as_json)
    reports.begin()
    ready = f"worker is ready on the {settings.transport} transport"
    run_until_stopped(lambda: run_worker(settings, on_ready=lambda: reports.ready(ready, transport=settings.transport)))
    reports.stopped()
