"""docs/api.md: every public name by subject, with its signature and its docstring."""

import ast
import enum
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

import prela_stream
from prela_stream import compat, integrations, testing
from tools.docstrings import cell, description, field_docstrings, summary

INTRODUCTION: Final = """\
# API

`import prela_stream as prela` gives the names of the first sections. Everything is typed. After `init()` nothing of this package
raises into the application; `PRELA_STRICT=1` lets errors out, for tests.
"""
_MODULES: Final = (
    ("prela_stream.integrations", integrations, integrations.__all__),
    ("prela_stream.compat", compat, compat.__all__),
    ("prela_stream.testing", testing, ["capture_spans", "CapturedSpans", "assert_tree", "render_tree"]),
)
_QUALIFIER: Final = re.compile(r"\b(?:[a-z_][a-z0-9_]*\.)+(?=[A-Za-z_])")
_ANNOTATED: Final = re.compile(r"Annotated\[(\w+), .*\]")
_ADDRESS: Final = re.compile(r"<(.*?) at 0x[0-9a-f]+>")


def text() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for subject, names in subjects().items():
        parts.append(f"## {subject}\n")
        parts += [_entry(name, getattr(prela_stream, name)) for name in names]
    for title, module, names in _MODULES:
        parts += [f"## {title}\n", f"{description(module)}\n"]
        parts += [_entry(name, getattr(module, name)) for name in names]
    return "\n".join(parts)


def subjects() -> dict[str, list[str]]:
    """The names of `prela_stream.__all__` below the comments that group them there."""
    source = Path(prela_stream.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source)
    (listed,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "__all__"
        and isinstance(node.value, ast.List)
    )
    found: dict[str, list[str]] = {}
    lines = source.splitlines()
    for number in range(listed.lineno, listed.end_lineno or 0):
        line = lines[number].strip()
        if line.startswith("# "):
            found[line[2:]] = []
        elif line.startswith('"') and not line.startswith('"__'):
            found[list(found)[-1]].append(line.strip('",'))
    return found


def _entry(name: str, thing: Any) -> str:
    if isinstance(thing, type):
        return _class(name, thing)
    return f"### {name}\n\n```text\n{name}{signature(thing)}\n```\n\n{description(thing)}\n"


def _class(name: str, kind: type) -> str:
    parts = [f"### {name}\n"]
    if issubclass(kind, msgspec.Struct):
        parts += [f"{description(kind)}\n", "| field | type | meaning |\n|---|---|---|"]
        parts += [
            f"| `{name}` | `{cell(_annotation(_declared(kind, name)))}` | {cell(_meaning(kind, name))} |"
            for name in kind.__struct_fields__
        ]
    elif typing.is_typeddict(kind):
        parts.append(f"{description(kind)}\n\nKeys: {', '.join(f'`{one}`' for one in kind.__annotations__)}.")
    elif issubclass(kind, enum.Enum):
        parts.append(f"{description(kind)}\n\nMembers: {', '.join(f'`{one}`' for one in kind.__members__)}.")
    else:
        if kind.__init__ is not object.__init__ and not issubclass(kind, BaseException):
            parts.append(f"```text\n{name}{signature(kind)}\n```\n")
        parts.append(description(kind))
    rows = [f"| `{shown}` | {cell(meaning)} |".replace(" | None", " \\| None") for shown, meaning in _members(kind)]
    if rows:
        parts += ["\n| member | meaning |\n|---|---|", *rows]
    return "\n".join(parts) + "\n"


def _declared(kind: type, field: str) -> Any:
    return next(base.__annotations__[field] for base in kind.__mro__ if field in getattr(base, "__annotations__", {}))


def _meaning(kind: type, field: str) -> str:
    for base in kind.__mro__:
        if field in getattr(base, "__annotations__", {}):
            return field_docstrings(base).get(field, "")
    return ""


def _members(kind: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties of a class that this package defines."""
    for name, member in inspect.getmembers_static(kind):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            if str(getattr(member.fget, "__module__", "")).startswith("prela_stream"):
                yield name, summary(member)
            continue
        function = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(function) and function.__module__.startswith("prela_stream"):
            yield f"{name}{signature(function)}", summary(function)


def signature(thing: Any) -> str:
    """The parameters without `self` and the result, as a reader writes the types."""
    found = inspect.signature(thing)
    shown = [one for one in found.parameters.values() if one.name not in ("self", "cls")]
    result = (
        "" if found.return_annotation is inspect.Signature.empty or isinstance(thing, type) else found.return_annotation
    )
    text = str(found.replace(parameters=[_plain(one) for one in shown], return_annotation=inspect.Signature.empty))
    text = _ADDRESS.sub("…", text).replace("'", '"')
    return text + (f" -> {_annotation(result)}" if result != "" else "")


def _plain(one: inspect.Parameter) -> inspect.Parameter:
    default = one.default
    if isinstance(default, enum.Enum):
        default = _Word(f"{type(default).__name__}.{default.name}")
    annotation = one.annotation
    if annotation is not inspect.Parameter.empty:
        annotation = _Word(_annotation(annotation))
    return one.replace(annotation=annotation, default=default)


class _Word:
    """A default that is shown as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _ANNOTATED.sub(r"\1", _QUALIFIER.sub("", text))
