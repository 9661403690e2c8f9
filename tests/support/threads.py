"""The threads that this package starts."""

import threading


def own_threads() -> set[threading.Thread]:
    """Threads of transports and pipelines, by this and earlier tests."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("prela-")}
