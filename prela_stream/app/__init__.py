"""The composition root: puts the parts together for a process. Importing it loads none of them."""

from prela_stream.app.adapters import (
    check_topics,
    chosen_sinks,
    create_topics,
    ensure_topics,
    load_policy_set,
    open_reader,
    open_sink,
    open_transport,
    ready_transport,
)
from prela_stream.app.doctor import diagnose
from prela_stream.app.services import run_dev, run_sinks, run_worker

__all__ = [
    "check_topics",
    "create_topics",
    "diagnose",
    "ensure_topics",
    "load_policy_set",
    "open_reader",
    "open_sink",
    "chosen_sinks",
    "open_transport",
    "ready_transport",
    "run_dev",
    "run_sinks",
    "run_worker",
]
