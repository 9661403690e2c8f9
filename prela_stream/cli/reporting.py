"""What a service reports: lines on standard error; with `--json`, events on standard output and the log as JSON lines.

An event is one JSON document in a line: `{"event": "ready", "service": "worker", …}`. A log line has `time` (UTC), `level`,
`logger`, `message` and, if there is one, `exception`.
"""

import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from prela_stream.cli.consoles import note, print_json
from prela_stream.cli.running import log_to_stderr
from prela_stream.text import without_user_info
from prela_stream.views.formats import clean

JSON_HELP: Final = (
    "Print events (ready, stopped, decisions of dev) as JSON lines, and the log as JSON lines on standard error."
)


class Reports(msgspec.Struct, frozen=True):
    """The reports of one service."""

    service: str
    as_json: bool

    def begin(self) -> None:
        """Show the log of the service."""
        log_to_stderr(JsonFormatter() if self.as_json else None)

    def ready(self, text: str, **facts: Any) -> None:
        """The service works.

        Args:
            text: The line for people.
            facts: The same for programs.
        """
        self._report(text, "ready", facts)

    def stopped(self) -> None:
        """The service has ended as it was asked to."""
        self._report(f"{self.service} has stopped", "stopped", {})

    def event(self, name: str, facts: dict[str, Any]) -> None:
        """An event that only programs get, with `--json`."""
        if self.as_json:
            self._report("", name, facts)

    def _report(self, text: str, event: str, facts: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # a full disk or an ended reader ends no service
            if not self.as_json:
                note(clean(text))
            elif sys.stdout is not None:
                from prela_stream.cli.formats import to_json

                print_json(to_json({"event": event, "service": self.service, **facts}))


class JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON document without credentials in URLs."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        from prela_stream.cli.formats import to_json

        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _safe(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = _safe(self.formatException(record.exc_info))
        return to_json(line)


def _safe(text: str) -> str:
    return without_user_info(text.encode(errors="backslashreplace").decode())
