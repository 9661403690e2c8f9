"""Reading a policy file: every mistake in it at once, each with its path, what was expected, what came and what to do."""

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

from prela_stream.errors import ConfigurationError
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.registry import POLICIES
from prela_stream.sampling.share import Always

MODES: Final = ("any", "first_match")
_LONGEST_VALUE: Final = 60


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy file says."""

    mode: str
    default: float
    policies: tuple[Condition, ...]


def read_policy_file(text: str, source: str) -> PolicyFile:
    """Read the TOML text of a policy file; `source` names it in errors. Raises ConfigurationError with all mistakes."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}, the end of the file"
        msg = f"{source} is not valid TOML: {str(error).replace('at end of document', end)}"
        raise ConfigurationError(msg) from None
    reader = _Reader()
    found = reader.file(data)
    if reader.problems:
        lines = "".join(f"\n  {path}: {problem}" if path else f"\n  {problem}" for path, problem in reader.problems)
        noun = "mistake" if len(reader.problems) == 1 else "mistakes"
        msg = f"{source} has {len(reader.problems)} {noun}:{lines}"
        raise ConfigurationError(msg)
    return found


class _Reader:
    """Walks the tables of one file and collects what is wrong with them, in the order of the file's keys."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def say(self, path: str, problem: str) -> None:
        self.problems.append((path, problem))

    def file(self, data: Mapping[str, Any]) -> PolicyFile:
        self.unknown_keys(data, ("mode", "default", "policy"), "")
        mode = data.get("mode", "any")
        if mode not in MODES:
            self.say("mode", f"expected {_one_of(MODES)}, got {_show(mode)}{_nearest(mode, MODES)}")
        default = data.get("default", 1.0)
        if mode == "any" and "default" in data:
            self.say(
                "default", "only mode first_match has a default; in mode any, end with a policy of type probabilistic"
            )
        elif not _is_probability(default):
            self.say("default", f"expected a number from 0 to 1, got {_show(default)}")
        tables = data.get("policy", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.say("policy", f"expected tables headed [[policy]], got {_show(tables)}")
            tables = []
        elif not tables:
            self.say("", "no policies; expected at least one table headed [[policy]]")
        policies = [self.policy(table, f"policy[{i}]", nested=False) for i, table in enumerate(tables)]
        self.names(policies)
        if mode == "first_match":
            self.unreachable(policies)
        elif policies and all(isinstance(policy, Drop) for policy in policies):
            self.say("policy", "all policies are of type drop, so nothing would ever be kept; add one that keeps")
        if self.problems:
            return PolicyFile(mode="any", default=1.0, policies=())
        return PolicyFile(mode=mode, default=float(default), policies=tuple(p for p in policies if p is not None))

    def policy(self, table: Mapping[str, Any], path: str, *, nested: bool) -> Condition | None:
        """One policy, or None where anything in it is wrong."""
        kind = table.get("type")
        if kind is None:
            self.say(f"{path}.type", f"missing; expected {_one_of(POLICIES)}")
            return None
        if not isinstance(kind, str) or kind not in POLICIES:
            self.say(f"{path}.type", f"expected {_one_of(POLICIES)}, got {_show(kind)}{_nearest(kind, POLICIES)}")
            return None
        if nested and POLICIES[kind] is Drop:
            self.say(f"{path}.type", "drop stands at the top of a policy file only; use not here")
            return None
        fields = msgspec.structs.fields(POLICIES[kind])
        before = len(self.problems)
        self.unknown_keys(table, ["type", *(field.name for field in fields)], path)
        known = [field for field in fields if field.name in table or field.required]
        values = {field.name: self.value(field, table, path) for field in known if field.name != "policies"}
        sound = len(self.problems) == before
        if any(field.name == "policies" for field in known):
            values["policies"] = self.sub_policies(table.get("policies"), f"{path}.policies")
        if not sound:
            return None
        if not nested and not values.get("name"):
            values["name"] = kind
        # made even where a sub-policy is wrong, so that what contradicts itself beside it is said in the same go
        policy = POLICIES[kind](**values)
        for field_name, problem in policy.problems():
            self.say(f"{path}.{field_name}" if field_name else path, problem)
        return policy if len(self.problems) == before else None

    def value(self, field: msgspec.structs.FieldInfo, table: Mapping[str, Any], path: str) -> Any:
        """The value of one setting, converted; None after a problem."""
        here = f"{path}.{field.name}"
        expected = _describe(inspect.type_info(field.type))
        if field.name not in table:
            self.say(here, f"missing; expected {expected}")
            return None
        value = table[field.name]
        try:
            if isinstance(value, float) and not math.isfinite(value):
                raise msgspec.ValidationError
            return msgspec.convert(value, field.type)
        except msgspec.ValidationError:  # its own text does not show the value
            self.say(here, f"expected {expected}, got {_show(value)}")
            return None

    def sub_policies(self, tables: Any, path: str) -> tuple[Condition, ...]:
        """The sub-policies; a wrong one is replaced by one that contradicts nothing, so that the others keep their place."""
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            got = "missing" if tables is None else f"got {_show(tables)}"
            self.say(path, f"expected a list of at least one policy table, {got}")
            return ()
        policies = [self.policy(table, f"{path}[{i}]", nested=True) for i, table in enumerate(tables)]
        return tuple(policy or Always() for policy in policies)

    def unknown_keys(self, table: Mapping[str, Any], known: Iterable[str], path: str) -> None:
        names = list(known)
        for key in table:
            if key not in names:
                where = f"{path}.{key}" if path else key
                self.say(where, f"unknown key{_nearest(key, names) or f'; expected {_one_of(names)}'}")

    def names(self, policies: list[Condition | None]) -> None:
        """Names are unique, and none looks like one that the evaluator gives."""
        seen: dict[str, int] = {}
        for index, policy in enumerate(policies):
            if policy is None:
                continue
            if policy.name.startswith("("):
                self.say(f"policy[{index}].name", f"names in brackets are reserved, got {_show(policy.name)}")
            first = seen.setdefault(policy.name, index)
            if first != index:
                self.say(
                    f"policy[{index}].name",
                    f"{_show(policy.name)} is the name of policy[{first}] already (a policy without a name has that of "
                    "its type); give each a name of its own",
                )

    def unreachable(self, policies: list[Condition | None]) -> None:
        """In first_match, nothing comes after a policy that matches every trace."""
        end = next((i for i, policy in enumerate(policies) if policy is not None and policy.unconditional), None)
        if end is not None:
            for index in range(end + 1, len(policies)):
                self.say(
                    f"policy[{index}]", f"never reached, for policy[{end}] matches every trace; move that to the end"
                )


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0


def _one_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _nearest(word: Any, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(names), n=1) if isinstance(word, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _show(value: Any) -> str:
    """A value as the file would write it, about, and not too long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _describe(kind: inspect.Type) -> str:
    """The values of a setting in words."""
    match kind:
        case inspect.FloatType(ge=low, le=high) | inspect.IntType(ge=low, le=high):
            if low is None:
                return "a number"
            return f"a number from {low:g} to {high:g}" if high is not None else f"a number, {low:g} or more"
        case inspect.StrType(min_length=length):
            return "a string that is not empty" if length else "a string"
        case inspect.BoolType():
            return "true or false"
        case inspect.EnumType(cls=cls):
            return _one_of(str(member.value) for member in cls)
        case inspect.LiteralType(values=values):
            return _one_of(str(value) for value in values)
        case inspect.VarTupleType(item_type=item, min_length=length):
            return f"a list{' of at least one' if length else ''}, each {_describe(item)}"
        case inspect.UnionType(types=types):
            words = dict.fromkeys(_describe(part) for part in types if not isinstance(part, inspect.NoneType))
            return _one_of(words)
        case _:
            return "a policy table"
