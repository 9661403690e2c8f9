"""Checks the arguments of `init()` and `pipeline()`, and reports those that have no effect."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from prela_stream.compat.prela import PROJECT_ID, checked_exporter, report_what_has_no_effect
from prela_stream.config import Settings, checked_settings, is_off, load_settings
from prela_stream.errors import ConfigurationError, warn_once
from prela_stream.instrumentation.registry import checked_names
from prela_stream.model.plain import plain, safe_text
from prela_stream.privacy.rules import Redactable
from prela_stream.tracing.sampler import BaseSampler
from prela_stream.validation import absolute


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What `init()` was given; a second call with an equal one changes nothing."""

    settings: Settings
    sampler: BaseSampler | None
    instrument: bool | tuple[str, ...]
    resource_attributes: dict[str, Any]
    redact: Callable[[Redactable], object] | None = None
    exporter: Any = None
    opentelemetry: bool | None = False


def read_init(given: Mapping[str, Any], ancestor: Mapping[str, Any], known: frozenset[str]) -> Setup:
    """The checked arguments of `init()`.

    Args:
        given: Its own arguments by name.
        ancestor: What it was given besides: arguments of the ancestor SDK.
        known: The names of its own arguments, for hints.

    Raises:
        ConfigurationError: An argument or a setting is wrong.
        TypeError: As its own methods raise it.
    """
    with _reading_arguments():
        report_what_has_no_effect(ancestor, given["exporter"], known)
        sampler, redact = checked_sampler(given["sampler"]), checked_redact(given["redact"])
        exporter = checked_exporter(given["exporter"])
        chosen = given["auto_instrument"]
        instrument = chosen if isinstance(chosen, bool) else checked_names(chosen)
        project_id = given["project_id"] or os.environ.get("PRELA_PROJECT_ID")
        resource = {
            **({PROJECT_ID: project_id} if project_id else {}),
            **_checked_mapping("resource_attributes", given["resource_attributes"]),
        }
        opentelemetry = _checked_switch("opentelemetry", given["opentelemetry"])
        directory, config = (_checked_path(key, given[key]) for key in ("directory", "config"))
    overrides = {
        "service_name": given["service_name"],
        "directory": directory,
        "sample_rate": given["sample_rate"],
        "capture_content": given["capture_content"],
    }
    settings = load_settings(
        None if config is None else Path(config),
        overrides={key: value for key, value in overrides.items() if value is not None},
    )
    _warn_of_arguments_without_effect(given, settings, directory)
    return Setup(
        settings=settings,
        sampler=sampler,
        instrument=False if is_off("PRELA_AUTO_INSTRUMENT") else instrument,
        resource_attributes=plain(resource),
        redact=redact,
        exporter=exporter,
        opentelemetry=False if is_off("PRELA_OPENTELEMETRY") else opentelemetry,
    )


def _checked_mapping(name: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    msg = f"init({name}=…) expects a mapping of names to values, got {safe_text(value)}"
    raise ConfigurationError(msg)


def _checked_switch(name: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    msg = f"init({name}=…) expects True, False or None, got {safe_text(value)}"
    raise ConfigurationError(msg)


def _checked_path(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | os.PathLike):
        return None if value is None else os.fspath(value)
    msg = f"init({name}=…) expects a path, got {safe_text(value)}"
    raise ConfigurationError(msg)


def _warn_of_arguments_without_effect(given: Mapping[str, Any], settings: Settings, directory: Any) -> None:
    """Warn once of each argument that another argument or setting makes meaningless."""
    reasons = {}
    if given["sampler"] is not None and given["sample_rate"] is not None:
        reasons["sample_rate"] = "sampler=… replaces it. Give one of them"
    if directory is not None and settings.transport == "kafka":
        reasons["directory"] = (
            "the transport is kafka, which has no folder. Remove the argument or set transport to local"
        )
    elif directory is not None and Path(settings.local.path).parent != Path(directory):
        reasons["directory"] = (
            f"the setting local.path puts the log at {absolute(Path(settings.local.path))}. Remove one of them"
        )
    if isinstance(given["auto_instrument"], list | tuple | set | frozenset) and is_off("PRELA_AUTO_INSTRUMENT"):
        reasons["auto_instrument"] = "the variable PRELA_AUTO_INSTRUMENT turns it off"
    for name, reason in reasons.items():
        warn_once(f"init({name}=…) has no effect: {reason}")


def read_pipeline(settings: object, sampler: object, redact: object) -> Setup:
    """The checked arguments of `pipeline()`; raises ConfigurationError."""
    if settings is not None and not isinstance(settings, Settings):
        msg = f"pipeline(settings=…) expects the Settings that load_settings() returns, got {safe_text(settings)}"
        raise ConfigurationError(msg)
    return Setup(
        settings=load_settings() if settings is None else checked_settings(settings),
        sampler=checked_sampler(sampler),
        instrument=False,
        resource_attributes={},
        redact=checked_redact(redact),
    )


@contextmanager
def _reading_arguments() -> Iterator[None]:
    """Report whatever the methods of an argument raise while it is read as a mistake in the argument."""
    try:
        yield
    except (ConfigurationError, TypeError):
        raise
    except Exception as error:
        msg = f"an argument of init() cannot be read: {type(error).__name__}"
        raise ConfigurationError(msg) from error


def checked_sampler(sampler: object) -> BaseSampler | None:
    """A head sampler or None; raises ConfigurationError."""
    if sampler is None or isinstance(sampler, BaseSampler):
        return sampler
    msg = f"init(sampler=…) expects a head sampler, such as ProbabilitySampler(0.1), got {safe_text(sampler)}"
    raise ConfigurationError(msg)


def checked_redact(redact: Any) -> Callable[[Redactable], object] | None:
    """A redaction hook or None; raises ConfigurationError."""
    if redact is None or (callable(redact) and not inspect.iscoroutinefunction(redact)):
        return redact  # type: ignore[no-any-return]  # callable is all that can be known
    msg = (
        "init(redact=…) expects a function, not async, that takes a Redactable and changes it in place; "
        f"got {safe_text(redact)}"
    )
    raise ConfigurationError(msg)
