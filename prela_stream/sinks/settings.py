"""Reads the `[[sink]]` tables of the settings. Each sink has a name, a type and the options of its type."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from prela_stream.sinks.registry import SINK_TYPES, options_type

DEFAULT_TYPE: Final = "sqlite"
GROUPS: Final = "sinks."
"""The consumer group of a sink is this and its name, after the prefix of the topics."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[sink]]` table."""

    name: str
    """Names the sink in logs, in metrics, in `--only` and in its consumer group. Default: the type."""
    type: str
    """A key of `SINK_TYPES`."""
    options: Any
    """The options Struct of the type."""

    @property
    def group(self) -> str:
        """The consumer group, without the prefix of the topics."""
        return f"{GROUPS}{self.name}"

    @property
    def destination(self) -> str:
        """Where it writes, for messages: the absolute path of a sink that has one, else its type."""
        path = getattr(self.options, "path", None)
        return self.type if path is None else str(Path(path).absolute())

    def table(self) -> dict[str, Any]:
        """The table that gives this sink. Options that are None are left out, because TOML has no null."""
        options = msgspec.to_builtins(self.options)
        return {"name": self.name, "type": self.type, **{k: v for k, v in options.items() if v is not None}}


class SinkTables(msgspec.Struct, frozen=True, kw_only=True):
    """What `read_sinks` found."""

    sinks: tuple[SinkSettings, ...]
    mistakes: list[tuple[str, str]]
    """Path and problem of each mistake: `("sink[0].typ", "unknown key; did you mean type?")`."""


def default_sinks(directory: str) -> tuple[SinkSettings, ...]:
    """The sinks of settings that name none: one SQLite store in `directory`."""
    return read_sinks([{}], directory).sinks


def read_sinks(tables: Any, directory: str) -> SinkTables:
    """Read all `[[sink]]` tables.

    Args:
        tables: The value of `sink` as TOML or JSON gives it.
        directory: Where files go whose path is not set.
    """
    if isinstance(tables, str) or not isinstance(tables, Sequence):
        problem = "expected a list of tables: write [[sink]], with the options of one sink below"
        return SinkTables(sinks=(), mistakes=[("sink", problem)])
    sinks: list[SinkSettings] = []
    mistakes: list[tuple[str, str]] = []
    names: set[str] = set()
    paths: dict[str, str] = {}
    for number, table in enumerate(tables):
        where = f"sink[{number}]"
        if not isinstance(table, Mapping):
            mistakes.append((where, "expected a table with name, type and the options of the type"))
            continue
        one = _read(dict(table), where, directory, mistakes)
        if one is None:
            continue
        if one.name in names:
            mistakes.append((f"{where}.name", f"the name {one.name!r} is used twice: give each sink its own name"))
        names.add(one.name)
        path = getattr(one.options, "path", None)
        if path is not None and (other := paths.setdefault(str(Path(path).absolute()), one.name)) != one.name:
            problem = f"{path} is also the path of sink {other!r}: give each sink its own path"
            mistakes.append((f"{where}.path", problem))
        sinks.append(one)
    return SinkTables(sinks=tuple(sinks), mistakes=mistakes)


def _read(table: dict[str, Any], where: str, directory: str, mistakes: list[tuple[str, str]]) -> SinkSettings | None:
    kind = table.pop("type", DEFAULT_TYPE)
    if not isinstance(kind, str) or kind not in SINK_TYPES:
        expected = f"expected one of {', '.join(SINK_TYPES)}, got {kind!r}"
        mistakes.append((f"{where}.type", expected + _nearest(kind, SINK_TYPES)))
        return None
    name = table.pop("name", kind)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        mistakes.append((f"{where}.name", f"expected 1 to 64 letters, digits, '_' and '-', got {name!r}"))
        return None
    path = SINK_TYPES[kind].path
    if path is not None:
        table.setdefault("path", str(Path(directory) / path))
    options = options_type(kind)
    wrong = [(f"{where}.{key}", problem) for key, problem in _mistakes(table, options)]
    mistakes += wrong
    return None if wrong else SinkSettings(name=name, type=kind, options=msgspec.convert(table, options))


def _mistakes(table: Mapping[str, Any], options: type[msgspec.Struct]) -> list[tuple[str, str]]:
    fields = {field.name: field for field in msgspec.structs.fields(options)}
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        if key not in fields:
            found.append((key, f"unknown key; expected one of {', '.join(fields)}{_nearest(key, fields)}"))
            continue
        try:
            msgspec.convert(value, fields[key].type)
        except msgspec.ValidationError as error:
            text = str(error)
            found.append((key, text[:1].lower() + text[1:]))
    return found


def _nearest(word: Any, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(names), n=1) if isinstance(word, str) else []
    return f"; did you mean {near[0]}?" if near else ""
