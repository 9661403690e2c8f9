"""Reads the `[[sink]]` tables of the settings. Each sink has a name, a type and the options of its type."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from prela_stream.sinks.registry import SINK_TYPES, options_type
from prela_stream.text import show
from prela_stream.validation import Mistakes, absolute, fields_of, nearest, one_of, path_problem

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
        return self.type if path is None else absolute(Path(path))

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
    mistakes = Mistakes("")
    names: set[str] = set()
    paths: dict[str, str] = {}
    for number, table in enumerate(tables):
        where = f"sink[{number}]"
        if not isinstance(table, Mapping):
            mistakes.report(where, "expected a table with name, type and the options of the type")
            continue
        one = _read(dict(table), where, directory, mistakes)
        if one is None:
            continue
        if one.name in names:
            mistakes.report(f"{where}.name", f"the name {show(one.name)} is used twice; give each sink another name")
        names.add(one.name)
        path = getattr(one.options, "path", None)
        if path is not None and (other := paths.setdefault(absolute(Path(path)), one.name)) != one.name:
            problem = f"{show(path)} is also the path of the sink {show(other)}; give each sink another path"
            mistakes.report(f"{where}.path", problem)
        sinks.append(one)
    return SinkTables(sinks=tuple(sinks), mistakes=mistakes.found)


def _read(table: dict[str, Any], where: str, directory: str, mistakes: Mistakes) -> SinkSettings | None:
    kind = table.pop("type", DEFAULT_TYPE)
    if not isinstance(kind, str) or kind not in SINK_TYPES:
        mistakes.report(f"{where}.type", f"expected {one_of(SINK_TYPES)}, got {show(kind)}{nearest(kind, SINK_TYPES)}")
        return None
    before = len(mistakes.found)
    name = table.pop("name", kind)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        mistakes.report(f"{where}.name", f"expected 1 to 64 letters, digits, '_' and '-', got {show(name)}")
    path = SINK_TYPES[kind].path
    if path is not None:
        table.setdefault("path", str(Path(directory) / path))
    fields = fields_of(options_type(kind))
    mistakes.unknown_keys(table, ["type", "name", *fields], where)
    values = {key: mistakes.value(fields[key], table[key], f"{where}.{key}") for key in table if key in fields}
    if len(mistakes.found) != before:
        return None
    options = options_type(kind)(**values)
    if path is not None and (url := path_problem(values["path"])):
        mistakes.report(f"{where}.path", url)
    for key, problem in getattr(options, "problems", tuple)():
        mistakes.report(f"{where}.{key}", problem)
    return SinkSettings(name=name, type=kind, options=options)
