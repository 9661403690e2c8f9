"""The arguments of `init()` and the variables of the ancestor SDK: which are accepted, and which have no effect here."""

import os
from collections.abc import Mapping
from typing import Any, Final, TypedDict

from prela_stream.errors import ConfigurationError, warn_once
from prela_stream.model.plain import safe_text
from prela_stream.text import visible
from prela_stream.validation import nearest

PROJECT_ID: Final = "prela.project.id"
_NO_EXPORTER: Final = "spans go to the log; `prela-stream dev` stores them and `prela-stream traces list` lists them"
_WITHOUT_EFFECT: Final = {
    "PRELA_EXPORTER": _NO_EXPORTER,
    "PRELA_TRACE_DIR": "the folder is PRELA_DIRECTORY",
    "PRELA_HTTP_ENDPOINT": _NO_EXPORTER,
    "PRELA_API_KEY": _NO_EXPORTER,
    "PRELA_CAPTURE_REPLAY": "content is recorded unless PRELA_CAPTURE_CONTENT is false",
    "PRELA_N8N_WEBHOOK_PORT": "there is no webhook",
}


class AncestorOptions(TypedDict, total=False):
    """Arguments of the ancestor's `init()` and exporters that are accepted and have no effect. Each is logged once."""

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


def report_what_has_no_effect(options: Mapping[str, Any], exporter: object, known: frozenset[str]) -> None:
    """Log a warning, once each, for what is accepted and has no effect; raise ConfigurationError for what neither SDK has.

    Args:
        options: Arguments of `init()` beside its own.
        exporter: As `init(exporter=…)`: text is the name of an exporter of the ancestor, which does not exist here.
        known: The names of the arguments of `init()`, for the hint.
    """
    for name in options:
        if name not in AncestorOptions.__annotations__:
            hint = nearest(name, sorted(known)) or f"; its arguments are {', '.join(sorted(known))}"
            msg = f"init() has no argument {visible(name, lines=False)}{hint}"
            raise ConfigurationError(msg)
        _report(f"init({name}=…)", "it belongs to an exporter of the ancestor SDK")
    if isinstance(exporter, str):
        _report("init(exporter='…')", _NO_EXPORTER)
    for variable in sorted(_WITHOUT_EFFECT.keys() & os.environ.keys()):
        _report(variable, _WITHOUT_EFFECT[variable])


def _report(what: str, why: str) -> None:
    warn_once(f"{what} has no effect: {why}")


def checked_exporter(exporter: Any) -> Any:
    """An object with `export(spans)`; None for none and for a name. Raises ConfigurationError for anything else."""
    if exporter is None or isinstance(exporter, str):
        return None
    if callable(getattr(exporter, "export", None)):
        return exporter
    msg = f"init(exporter=…) expects an object with a method export(spans), see BaseExporter; got {safe_text(exporter)}"
    raise ConfigurationError(msg)
