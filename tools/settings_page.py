"""docs/settings.md: every setting with its type, unit, default, variable and meaning."""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.config import OTHER_VARIABLES, SECTIONS, Settings, variables
from prela_stream.sinks.registry import SINK_TYPES, options_type
from prela_stream.validation import describe, fields_of, unit_of
from tools.docstrings import cell, field_docstrings, summary

INTRODUCTION: Final = """\
# Settings

Settings come from three places. Arguments (of `init()`, of `prela-stream`) win over `PRELA_*` variables, and variables win over
the settings file: `prela.toml` in the working directory, or the file that `--config` or `PRELA_CONFIG` names. The section
`[assembly]` with `settle_ms = 500` in the file is `PRELA_ASSEMBLY_SETTLE_MS=500` in the environment. In variables, lists are
written with commas and tables as JSON. An empty variable counts as not set. A relative path in a settings file is relative to the
folder of that file, and elsewhere to the working directory.

All mistakes are reported at once, each with its path. An unknown key of the file is an error. An unknown variable is a
warning. Every number has a range, which its type column gives. Passwords never appear in messages.
"""
HEAD: Final = "| setting | type | unit | default | variable | meaning |\n|---|---|---|---|---|---|"


def text() -> str:
    """The page."""
    by_path = {path: name for name, path in variables().items()}
    top = [name for name in fields_of(Settings) if ("", name) in by_path]
    parts = [INTRODUCTION, "## Top level\n", _table(Settings, top, "", by_path)]
    for section, kind in SECTIONS.items():
        parts += [f"\n## [{section}]\n", f"{summary(kind)}\n", _table(kind, list(fields_of(kind)), section, by_path)]
    parts.append(f"\n## [[sink]]\n\n{_sinks()}")
    parts.append("\n## Further variables\n\n| variable | meaning |\n|---|---|")
    parts += [f"| `{name}` | {cell(meaning)} |" for name, meaning in OTHER_VARIABLES.items()]
    return "\n".join(parts)


def _sinks() -> str:
    head = HEAD.replace(" variable |", "").replace("|---|---|---|---|---|---|", "|---|---|---|---|---|")
    parts = [
        (
            "One table for each sink, each with its own consumer group. `PRELA_SINK` gives them as a JSON array. `name` names\n"
            "the sink in logs, metrics, `--only` and its consumer group (default: the type); `type` is one of "
            + ", ".join(f"`{name}`" for name in SINK_TYPES)
            + " (default: `sqlite`). The other keys are those of the type.\n"
        )
    ]
    for name in SINK_TYPES:
        kind = options_type(name)
        rows = [_row(field, kind, None) for field in fields_of(kind).values()]
        parts += [f'### type = "{name}"\n', f"{summary(kind)}\n", head, *rows, ""]
    return "\n".join(parts).rstrip()


def _table(kind: type[msgspec.Struct], names: list[str], section: str, by_path: Mapping[tuple[str, str], str]) -> str:
    return "\n".join([HEAD, *(_row(fields_of(kind)[name], kind, by_path[section, name]) for name in names)])


def _row(field: msgspec.structs.FieldInfo, kind: type[msgspec.Struct], variable: str | None) -> str:
    cells = [f"`{field.name}`", cell(describe(field)), unit_of(field), _default(field)]
    cells += [] if variable is None else [f"`{variable}`"]
    return f"| {' | '.join([*cells, cell(field_docstrings(kind)[field.name])])} |"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return "none" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:_}"
    return "{}" if isinstance(value, Mapping) else f"[{', '.join(map(_toml, value))}]"
