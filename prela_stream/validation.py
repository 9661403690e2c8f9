"""Reads tables of settings into Structs and reports every mistake at once: its path, what was expected, what was found.

Settings files, `PRELA_*` variables and policy files are all read here. The rules of a value are those of its field's type:
`bounded` gives a number its range and unit, and the reference pages print the same rules.
"""

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from prela_stream.errors import ConfigurationError
from prela_stream.text import show, visible, without_credentials

HOUR: Final = 3_600_000
"""Milliseconds."""
_LARGEST_FILE: Final = 1 << 20
_LONGEST_PATH: Final = 200
_LONGEST_WORD: Final = 100
_UNITS_BY_SUFFIX: Final = {
    "_ms": "ms",
    "_us": "µs",
    "_s": "s",
    "_hours": "hours",
    "_days": "days",
    "_bytes": "bytes",
    "_rate": "share",
}
_TRUTHS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def bounded(low: float, high: float, unit: str = "") -> msgspec.Meta:
    """The range of a number and, where the suffix of its name does not give it, its unit; for `Annotated`."""
    return msgspec.Meta(ge=low, le=high, extra={"unit": unit} if unit else None)


class Mistakes:
    """What is wrong with one source of settings, in the order in which it was found."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[tuple[str, str]] = []

    def report(self, path: str, problem: str) -> None:
        """Add one."""
        shown = visible(path, lines=False)
        self.found.append((shown if len(shown) <= _LONGEST_PATH else f"{shown[:_LONGEST_PATH]}…", problem))

    def unknown_keys(self, table: Mapping[str, Any], known: Iterable[str], path: str, but: Iterable[str] = ()) -> None:
        """Report the keys of a table that do not exist, each with the nearest one that does; not those of `but`."""
        names = list(known)
        for key in table:
            if key not in names and key not in but:
                self.report(join(path, key), f"unknown key{nearest(key, names) or f'; expected {one_of(names)}'}")

    def value(self, field: msgspec.structs.FieldInfo, value: Any, path: str) -> Any:
        """The value of a setting, converted; None after a report."""
        try:
            if isinstance(value, float) and not math.isfinite(value):
                raise msgspec.ValidationError
            converted = msgspec.convert(value, field.type)
        except (msgspec.ValidationError, RecursionError, UnicodeError):  # its own text does not show the value
            self.report(path, f"expected {describe(field)}, got {_found(value, field)}")
            return None
        return self._without_nul(converted, path)

    def text(self, field: msgspec.structs.FieldInfo, text: str, path: str) -> Any:
        """As `value`, of a setting that a variable gives as text."""
        kind = _bare(field)
        if isinstance(kind, inspect.BoolType):
            return self.value(field, _TRUTHS.get(text.strip().lower(), text), path)
        if isinstance(kind, inspect.VarTupleType):
            return self.value(field, parts(text), path)
        if isinstance(kind, inspect.DictType):
            try:
                return msgspec.json.decode(text.encode(errors="surrogateescape"), type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError):
                self.report(path, f"expected {describe(field)}, got something else, which is not shown")
                return None
        if isinstance(kind, inspect.StrType):  # not converted: msgspec refuses bytes of a path that are not UTF-8
            return self._without_nul(text, path)
        if isinstance(kind, inspect.LiteralType):
            return self.value(field, text, path)
        try:
            converted = msgspec.convert(text.strip(), field.type, strict=False)
            if isinstance(converted, float) and not math.isfinite(converted):
                raise msgspec.ValidationError
        except msgspec.ValidationError:
            self.report(path, f"expected {describe(field)}, got {show(text, field.name)}")
            return None
        return converted

    def _without_nul(self, value: Any, path: str) -> Any:
        """No path, name or address of an operating system or of Kafka may hold NUL."""
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, str) and "\0" in part:
                self.report(path, "expected text without NUL characters, got one with NUL; remove it")
                return None
        return value

    def __str__(self) -> str:
        noun = "mistake" if len(self.found) == 1 else "mistakes"
        lines = "".join(f"\n  {path}: {problem}" if path else f"\n  {problem}" for path, problem in self.found)
        return f"{self.source} has {len(self.found)} {noun}:{lines}"


def raise_if_any(*sources: Mistakes) -> None:
    """Raise one ConfigurationError with the mistakes of all these sources, if there are any."""
    wrong = [str(source) for source in sources if source.found]
    if wrong:
        raise ConfigurationError("\n".join(wrong))


def read_text(path: Path, what: str, todo: str) -> str:
    """The text of a file.

    Args:
        path: The file.
        what: What it is, for the error: `settings file`.
        todo: What to do if it cannot be read.

    Raises:
        ConfigurationError: It is missing, not readable, larger than 1 MiB or not UTF-8.
    """
    shown = absolute(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        msg = f"cannot read the {what} {shown}: {reason}. {todo}"
        raise ConfigurationError(msg) from None
    if len(content) > _LARGEST_FILE:
        msg = f"the {what} {shown} is too large: expected at most {_LARGEST_FILE:,} bytes. {todo}"
        raise ConfigurationError(msg)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        msg = f"the {what} {shown} is not UTF-8: {error.reason} at byte {error.start:,}. Save it as UTF-8"
        raise ConfigurationError(msg) from None


def absolute(path: Path) -> str:
    """A path from the root on, for messages; as it is where the working directory is gone."""
    with suppress(OSError):
        path = path.absolute()
    return visible(str(path), lines=False)


def path_problem(value: object) -> str | None:
    """What is wrong with the value of a setting that is a path; None if nothing is."""
    return f"expected a path, got the URL {show(value)}" if isinstance(value, str) and "://" in value else None


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of a TOML text; `source` names it in the ConfigurationError that is raised if it is no TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = "its values are nested too deeply"
    except ValueError as error:  # of tomllib, and of Python for numbers with thousands of digits
        end = f"at line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}, the end of the file"
        problem = visible(without_credentials(str(error).replace("at end of document", end)), lines=False)
    msg = f"{source} is not valid TOML: {problem}"
    raise ConfigurationError(msg)


@cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a Struct by name."""
    return {field.name: field for field in msgspec.structs.fields(kind)}


def parts(text: str) -> list[str]:
    """The parts of a list that is written with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def join(path: str, key: str) -> str:
    """The path of a key in the table at `path`."""
    return f"{path}.{key}" if path else key


def one_of(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def nearest(word: Any, names: Iterable[str]) -> str:
    """`; did you mean x?` for the name that is most like a word; empty if none is."""
    if not isinstance(word, str) or len(word) > _LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def unit_of(field: msgspec.structs.FieldInfo) -> str:
    """The unit of a number: as `bounded` declares it, or by the suffix of its name; empty if there is none."""
    for kind in _alternatives(inspect.type_info(field.type)):
        if isinstance(kind, inspect.Metadata) and kind.extra and "unit" in kind.extra:
            return str(kind.extra["unit"])
    return next((unit for suffix, unit in _UNITS_BY_SUFFIX.items() if field.name.endswith(suffix)), "")


def describe(field: msgspec.structs.FieldInfo) -> str:
    """The values of a setting in words."""
    return _describe(inspect.type_info(field.type), unit_of(field))


def _describe(kind: inspect.Type, unit: str = "") -> str:
    match kind:
        case inspect.Metadata(type=inner):
            return _describe(inner, unit)
        case inspect.FloatType() | inspect.IntType():
            return _describe_number(kind, unit)
        case inspect.StrType(min_length=length):
            return "a string that is not empty" if length else "a string"
        case inspect.BoolType():
            return "true or false"
        case inspect.EnumType() | inspect.LiteralType():
            values = kind.values if isinstance(kind, inspect.LiteralType) else [member.value for member in kind.cls]
            return one_of(str(value) for value in values)
        case inspect.VarTupleType(item_type=item, min_length=length):
            return f"a list{' of at least one' if length else ''}, each {_describe(item)}"
        case inspect.UnionType(types=types):
            floats = any(isinstance(part, inspect.FloatType) for part in types)
            kinds = [part for part in types if not (isinstance(part, inspect.IntType) and floats)]
            return one_of(_describe(part, unit) for part in kinds if not isinstance(part, inspect.NoneType))
        case inspect.DictType():
            return "a table (in a variable: a JSON object)"
        case _:
            return "a policy table"


def _describe_number(kind: inspect.FloatType | inspect.IntType, unit: str) -> str:
    noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    noun += f" of {unit}" if unit not in ("", "share") else ""
    if kind.ge is None:
        return noun
    if kind.le is None:
        return f"{noun}, {kind.ge:g} or more"
    return f"{noun} from {_number(kind.ge)} to {_number(kind.le)}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return tuple(kind.types) if isinstance(kind, inspect.UnionType) else (kind,)


def _bare(field: msgspec.structs.FieldInfo) -> inspect.Type | None:
    """The type of a field without None and without metadata; None for a union of several."""
    kinds = [
        kind.type if isinstance(kind, inspect.Metadata) else kind
        for kind in _alternatives(inspect.type_info(field.type))
        if not isinstance(kind, inspect.NoneType)
    ]
    return kinds[0] if len(kinds) == 1 else None


def _found(value: Any, field: msgspec.structs.FieldInfo) -> str:
    """What was found, unless it may be a credential: the tables of other libraries' options are never shown."""
    if isinstance(_bare(field), inspect.DictType):
        return "something else, which is not shown"
    return show(value, field.name)
