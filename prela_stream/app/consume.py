"""`kept_traces()` and `decisions()`: what workers write, as async iterators for applications."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prela_stream.app.adapters import ready_transport
from prela_stream.config import Settings, checked_settings, load_settings
from prela_stream.errors import ConfigurationError
from prela_stream.model.plain import safe_text
from prela_stream.sinks.iterators import DecisionItems, KeptTraceItems, TopicIterator
from prela_stream.sinks.settings import GROUPS

if TYPE_CHECKING:
    from prela_stream.model.decision import Decision
    from prela_stream.sinks.kept_trace import KeptTrace

_GROUP_CHARACTERS: Final = 249


def kept_traces(
    group: str | None,
    *,
    follow: bool = True,
    directory: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> TopicIterator[KeptTrace]:
    """An async iterator of kept traces, each with its spans and its decision, in the order of the decisions; with a commit.

        async with prela_stream.kept_traces(group="billing") as traces:
            async for trace in traces:
                ...
                await traces.commit()  # this trace and all before it are done

    Delivery is at least once: what was not committed is returned again. An item is a whole trace, however many records it takes.
    Spans that arrive after the decision on their trace are a separate item, marked `late`.

    Args:
        group: Consumer group. Its members share the traces and continue where the group last committed; a new group begins with
            the oldest trace that retention has left. None: all traces from the beginning, without a commit.
        follow: Whether to wait for more traces. False: the iteration ends where the topic ended when reading began.
        directory: Folder of the local transport; default `.prela`.
        config: A TOML file of settings; default: the one that `PRELA_CONFIG` names, else `prela.toml` if it exists.
        settings: The result of `load_settings()`, instead of `directory` and `config`.

    Raises:
        ConfigurationError: An argument or a setting is wrong.
        UnknownTopicError: When it is entered, if the topics do not exist and the transport does not create them.
    """
    chosen = _settings(group, follow, directory, config, settings)
    transport = partial(ready_transport, chosen)
    return TopicIterator(transport, chosen.topics.sampled, KeptTraceItems, group=group, follow=follow)


def decisions(
    group: str | None,
    *,
    follow: bool = True,
    directory: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> TopicIterator[Decision]:
    """An async iterator of all decisions, on kept and on dropped traces. Use it for figures over all traffic.

    A decision has the verdict, its reason and its probability, and a summary of the trace, which is all that is left of a dropped
    one. Arguments, errors and delivery are those of `kept_traces()`.
    """
    chosen = _settings(group, follow, directory, config, settings)
    transport = partial(ready_transport, chosen)
    return TopicIterator(transport, chosen.topics.decisions, DecisionItems, group=group, follow=follow)


def _settings(group: Any, follow: Any, directory: Any, config: Any, settings: Any) -> Settings:
    """The settings that the arguments give. All arguments are checked before anything is opened."""
    for name, path in (("directory", directory), ("config", config)):
        if path is not None and not isinstance(path, str | os.PathLike):
            msg = f"{name}: expected a path, got {safe_text(path)}"
            raise ConfigurationError(msg)
    if not isinstance(follow, bool):
        msg = f"follow: expected True or False, got {safe_text(follow)}"
        raise ConfigurationError(msg)
    if settings is None:
        overrides = {} if directory is None else {"directory": os.fspath(directory)}
        chosen = load_settings(None if config is None else Path(config), overrides=overrides)
    elif isinstance(settings, Settings) and directory is None and config is None:
        chosen = checked_settings(settings)
    else:
        msg = "settings is the result of load_settings() and replaces directory and config: pass either it or those"
        raise ConfigurationError(msg)
    _check_group(group, chosen)
    return chosen


def _check_group(group: Any, settings: Settings) -> None:
    if group is None:
        return
    good = isinstance(group, str) and 0 < len(group) <= _GROUP_CHARACTERS
    if not good or not group.isprintable() or group != group.strip():
        msg = f"group: expected a name of 1 to {_GROUP_CHARACTERS} printable characters, got {safe_text(group)}"
        raise ConfigurationError(msg)
    own = group.removeprefix(f"{settings.topics.prefix}.")
    if own == settings.worker.group or own.startswith(GROUPS):
        msg = (
            f"the consumer group {group!r} is that of a worker or a sink, which would lose traces: choose another name"
        )
        raise ConfigurationError(msg)
