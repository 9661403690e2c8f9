"""`PRELA_DEBUG=1`: the log of this package on standard error."""

import logging
import os
import sys
from typing import Final, TextIO

from prela_stream.config import is_off
from prela_stream.text import VisibleFormatter

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""Of every log line that this package writes to standard error."""


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at this moment, unless a handler of the application has already written there."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.DEBUG)
        self.setFormatter(VisibleFormatter(LOG_FORMAT))

    @property
    def stream(self) -> TextIO | None:  # type: ignore[override]  # the base class keeps the stream of its creation
        """Standard error; None in a process without one."""
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record once."""
        if self.stream is not None and not any(_writes_to_stderr(one, record) for one in logging.getLogger().handlers):
            super().emit(record)


def _writes_to_stderr(handler: logging.Handler, record: logging.LogRecord) -> bool:
    stream = getattr(handler, "stream", None)
    return stream is not None and stream is sys.stderr and record.levelno >= handler.level


_HANDLER: Final = _StderrHandler()


def show_log_if_asked() -> None:
    """Show everything that this package logs, if `PRELA_DEBUG` is set and not off. Safe to call twice."""
    if os.environ.get("PRELA_DEBUG") and not is_off("PRELA_DEBUG"):
        logger = logging.getLogger("prela_stream")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(_HANDLER)
