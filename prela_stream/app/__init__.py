"""The composition root: puts the parts together for a process. Importing it loads none of them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prela_stream.app.adapters import (
        check_topics,
        chosen_sinks,
        create_topics,
        dev_policy_set,
        ensure_topics,
        load_policy_set,
        open_reader,
        open_sink,
        open_transport,
        ready_transport,
    )
    from prela_stream.app.doctor import diagnose
    from prela_stream.app.otlp import run_otlp, run_otlp_import
    from prela_stream.app.pages import run_web
    from prela_stream.app.services import run_dev, run_sinks, run_worker
    from prela_stream.app.undecided import undecided_traces

__all__ = [
    "check_topics",
    "create_topics",
    "dev_policy_set",
    "diagnose",
    "ensure_topics",
    "load_policy_set",
    "open_reader",
    "open_sink",
    "chosen_sinks",
    "open_transport",
    "ready_transport",
    "run_dev",
    "run_otlp",
    "run_otlp_import",
    "run_sinks",
    "run_web",
    "run_worker",
    "undecided_traces",
]

_MODULES = {
    "adapters": (
        "check_topics",
        "chosen_sinks",
        "create_topics",
        "dev_policy_set",
        "ensure_topics",
        "load_policy_set",
        "open_reader",
        "open_sink",
        "open_transport",
        "ready_transport",
    ),
    "doctor": ("diagnose",),
    "otlp": ("run_otlp", "run_otlp_import"),
    "pages": ("run_web",),
    "services": ("run_dev", "run_sinks", "run_worker"),
    "undecided": ("undecided_traces",),
}
_MODULE = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # type checkers would accept every misspelt name

    def __getattr__(name: str) -> Any:
        module = _MODULE.get(name)
        if module is None:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
