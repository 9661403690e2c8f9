"""`kept_traces()` and `decisions()`: what the workers write, for any program, over the transport that the settings name."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prela_stream.app.adapters import ready_transport
from prela_stream.config import Settings, load_settings
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
    """The traces that are kept, each with its spans and its decision, as they are decided: an async iterator with a commit.

        async with prela_stream.kept_traces(group="billing") as traces:
            async for trace in traces:
                ...
                await traces.commit()  # everything handed out so far is done

    At least once: what is not committed comes again, as does nothing else where workers run in one group. An item is a whole
    trace, however many Records it takes; spans that come after their trace's decision are an item of their own, marked `late`.

    Args:
        group: Readers of one group share the traces, and go on where they last committed; a new group begins with the oldest
            that are still there. None: all of them, from the beginning, and no commit.
        follow: Whether to wait for more. False: the iteration ends where the topic ended when reading began.
        directory: Folder of the local transport; default `.prela`.
        config: A TOML file of settings; default `PRELA_CONFIG`, else `prela.toml` if there is one.
        settings: Everything, as `load_settings()` gives it; instead of `directory` and `config`.

    Raises:
        ConfigurationError: an argument or a setting is wrong.
        UnknownTopicError: on entering, if there are no topics yet and the transport does not make them by itself.
    """
    chosen = _settings(group, follow, directory, config, settings)
    opening = partial(ready_transport, chosen)
    return TopicIterator(opening, chosen.topics.sampled, KeptTraceItems, group=group, follow=follow)


def decisions(
    group: str | None,
    *,
    follow: bool = True,
    directory: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
) -> TopicIterator[Decision]:
    """Every decision, about kept and dropped traces alike: who, why, with which probability, and the trace in sum.

    As `kept_traces()` in everything else. For figures over all traffic: a dropped trace leaves nothing but this.

    Args:
        group: As of `kept_traces()`.
        follow: As of `kept_traces()`.
        directory: As of `kept_traces()`.
        config: As of `kept_traces()`.
        settings: As of `kept_traces()`.

    Raises:
        ConfigurationError: an argument or a setting is wrong.
        UnknownTopicError: on entering, if there are no topics yet and the transport does not make them by itself.
    """
    chosen = _settings(group, follow, directory, config, settings)
    opening = partial(ready_transport, chosen)
    return TopicIterator(opening, chosen.topics.decisions, DecisionItems, group=group, follow=follow)


def _settings(group: Any, follow: Any, directory: Any, config: Any, settings: Any) -> Settings:
    """The settings that the arguments mean; all of them are looked at before anything is opened."""
    for name, path in (("directory", directory), ("config", config)):
        if path is not None and not isinstance(path, str | os.PathLike):
            msg = f"{name} is a path, got {safe_text(path)}"
            raise ConfigurationError(msg)
    if not isinstance(follow, bool):
        msg = f"follow is True or False, got {safe_text(follow)}"
        raise ConfigurationError(msg)
    if settings is None:
        overrides = {} if directory is None else {"directory": os.fspath(directory)}
        chosen = load_settings(None if config is None else Path(config), overrides=overrides)
    elif isinstance(settings, Settings) and directory is None and config is None:
        chosen = settings
    else:
        msg = "settings is what load_settings() gives, and replaces directory and config: give either it or those"
        raise ConfigurationError(msg)
    _check_group(group, chosen)
    return chosen


def _check_group(group: Any, settings: Settings) -> None:
    if group is None:
        return
    good = isinstance(group, str) and 0 < len(group) <= _GROUP_CHARACTERS
    if not good or not group.isprintable() or group != group.strip():
        msg = f"a group is a name of 1 to {_GROUP_CHARACTERS} printable characters, got {safe_text(group)}"
        raise ConfigurationError(msg)
    own = group.removeprefix(f"{settings.topics.prefix}.")
    if own == settings.worker.group or own.startswith(GROUPS):
        msg = f"the group {group!r} is that of a worker or a store, and would take traces away from it: choose another name"
        raise ConfigurationError(msg)
