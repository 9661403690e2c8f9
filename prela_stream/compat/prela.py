"""What code that was written for the ancestor SDK says to `init()` and in variables, and what becomes of it here."""

import difflib
import logging
import os
from collections.abc import Mapping
from typing import Any, Final, TypedDict

from prela_stream.errors import ConfigurationError

logger = logging.getLogger("prela_stream")

PROJECT_ID: Final = "prela.project.id"
_NO_EXPORTER: Final = "spans go to the log; `prela-stream dev` stores them and `prela-stream traces` shows them"
_WITHOUT_EFFECT: Final = {
    "PRELA_EXPORTER": _NO_EXPORTER,
    "PRELA_TRACE_DIR": "the folder is PRELA_DIRECTORY",
    "PRELA_HTTP_ENDPOINT": _NO_EXPORTER,
    "PRELA_API_KEY": _NO_EXPORTER,
    "PRELA_CAPTURE_REPLAY": "content is recorded unless PRELA_CAPTURE_CONTENT is false",
    "PRELA_N8N_WEBHOOK_PORT": "there is no webhook",
}
_told: Final[set[str]] = set()


class AncestorOptions(TypedDict, total=False):
    """Keyword arguments of the ancestor's `init()` and its exporters that are taken and have no effect: each is logged once."""

    capture_for_replay: bool
    n8n_webhook_port: int | None
    n8n_webhook_host: str
    verbosity: str
    color: bool
    show_timestamps: bool
    format: str
    max_file_size_mb: int
    rotate: bool
    endpoint: str
    api_key: str | None
    bearer_token: str | None
    compress: bool
    headers: dict[str, str] | None


def tell_what_has_no_effect(options: Mapping[str, Any], exporter: object, known: frozenset[str]) -> None:
    """Log, once each, what is taken but does nothing here; raises ConfigurationError for what neither SDK knows.

    Args:
        options: What came beside our own arguments.
        exporter: As `init(exporter=…)`: a text names one of the ancestor's, of which there is none here.
        known: The names of our own arguments, for the hint.
    """
    for name in options:
        if name not in AncestorOptions.__annotations__:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            msg = f"init() has no argument {name}; {hint}"
            raise ConfigurationError(msg)
        _tell(f"init({name}=…)", "it belongs to an exporter of the ancestor SDK")
    if isinstance(exporter, str):
        _tell("init(exporter='…')", _NO_EXPORTER)
    for variable in sorted(_WITHOUT_EFFECT.keys() & os.environ.keys()):
        _tell(variable, _WITHOUT_EFFECT[variable])


def _tell(what: str, why: str) -> None:
    if what not in _told:
        _told.add(what)
        logger.info("prela_stream: %s has no effect: %s", what, why)


def is_off(variable: str) -> bool:
    """Whether a variable says no."""
    return os.environ.get(variable, "").lower() in ("false", "0", "no", "off")


def checked_exporter(exporter: Any) -> Any:
    """An object with `export(spans)`; None for none and for a name. Raises ConfigurationError for anything else."""
    if exporter is None or isinstance(exporter, str):
        return None
    if callable(getattr(exporter, "export", None)):
        return exporter
    msg = f"init(exporter=…) takes an object with a method export(spans), see BaseExporter, got {exporter!r}"
    raise ConfigurationError(msg)
