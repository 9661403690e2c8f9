"""Values inside foreign attributes: JSON in strings, and lists and maps that were flattened into dotted keys."""

import ast
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.model.plain import plain, safe_text

_encoder: Final = msgspec.json.Encoder(enc_hook=safe_text)
_LONGEST_PRINTED: Final = 1 << 16
MAX_INDEX: Final = 10_000
"""A larger index in a dotted key is a name, not a position in a list."""


def parsed(value: Any) -> Any:
    """A string that holds a JSON array or object, decoded; any other value as it is."""
    if not isinstance(value, str):
        return value
    text = value.lstrip()
    if not text.startswith(("{", "[")):
        return value
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return value


def printed(value: str) -> Any:
    """A list or a map as Python prints it; a text that is none, or is very long, as it is."""
    if len(value) > _LONGEST_PRINTED or not value.startswith(("[{'", "{'", "['")):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def json_string(value: Any) -> Any:
    """The text in a JSON string, which is a string with quotes around it; any other value as it is."""
    if isinstance(value, str) and len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return msgspec.json.decode(value, type=str)
        except (msgspec.DecodeError, UnicodeError):
            return value
    return value


def as_map(value: Any) -> Mapping[str, Any]:
    """A map, or a string with a JSON object; an empty map for anything else."""
    found = parsed(value)
    return found if isinstance(found, Mapping) else {}


def maps_in(value: Any) -> list[Mapping[str, Any]]:
    """The maps of a list; none for anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def as_int(value: Any) -> int | None:
    """A whole number, also from a float or a string of digits; None for anything else."""
    if value.__class__ is int:
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= 20:
        digits = value.strip().removesuffix(".0")
        return int(digits) if digits.isascii() and digits.isdigit() else None
    return None


def as_float(value: Any) -> float | None:
    """A number, also from a string; None for anything else and for what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number - number == 0 else None


def text(value: Any) -> str | None:
    """A string that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None


def is_below(key: str, prefix: str) -> bool:
    """Whether a name is that of a part of a flattened list: `gen_ai.prompt.0.role`, and not `gen_ai.prompt.name`."""
    at = len(prefix) + 1
    return key.startswith(prefix) and key[at - 1 : at] == "." and key[at : at + 1].isdigit()


def nested(attributes: Mapping[str, Any], prefix: str) -> Any:
    """The list that was flattened into attributes with numbers below `prefix.`; None if there are none.

    `{"m.0.role": "user", "m.1.role": "tool"}` with the prefix `m` gives `[{"role": "user"}, {"role": "tool"}]`. A map whose
    keys are all small numbers is a list, in the order of the numbers; gaps are closed.
    """
    at = len(prefix) + 1
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        if is_below(key, prefix):
            _put(root, key[at:].split("."), value)
    return _listed(root) if root else None


def undotted(members: list[Any]) -> list[Any]:
    """Maps whose keys have dots, as `{"message.role": "user"}`, nested like the members of a flattened list."""
    found: list[Any] = []
    for one in members:
        root: dict[str, Any] = {}
        for key, value in one.items() if isinstance(one, Mapping) else ():
            _put(root, str(key).split("."), value)
        found.append(_listed(root) if root else one)
    return found


def _put(root: dict[str, Any], path: list[str], value: Any) -> None:
    node = root
    for part in path[:-1]:
        below = node.get(part)
        if not isinstance(below, dict):
            # a value and a map below the same key: the value keeps an own, empty, name
            below = node[part] = {} if below is None else {"": below}
        node = below
    last = path[-1]
    if isinstance(node.get(last), dict):
        node[last][""] = value
    else:
        node[last] = value


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if (
        node
        and all(key.isascii() and key.isdigit() and int(key) <= MAX_INDEX for key in node if len(key) <= 6)
        and all(len(key) <= 6 for key in node)
    ):
        return [_listed(node[key]) for key in sorted(node, key=int)]
    return {key: _listed(value) for key, value in node.items()}


def json_text(value: Any) -> str:
    """A structured value as JSON. Never raises for an attribute value: what JSON cannot hold becomes text."""
    try:
        return _encoder.encode(value).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # keys that are bytes, deep nesting
        return _encoder.encode(plain(value)).decode()
