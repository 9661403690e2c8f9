"""Reads a policy file and reports every mistake in it at once, each with its path."""

import enum
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.registry import POLICIES
from prela_stream.sampling.share import Always
from prela_stream.text import show
from prela_stream.validation import Mistakes, describe, fields_of, nearest, one_of, parse_toml, raise_if_any

_DEEPEST: Final = 32


class Mode(enum.StrEnum):
    """How the votes of a policy set become one probability."""

    ANY = "any"
    """OpenTelemetry's: drop policies first and final, then the highest probability."""
    FIRST_MATCH = "first_match"
    """Refinery's: in order, the first policy that matches."""


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a policy file."""

    mode: Mode
    default: float
    policies: tuple[Condition, ...]


def read_policy_file(text: str, source: str) -> PolicyFile:
    """Read the TOML text of a policy file; `source` names it in errors. Raises ConfigurationError with all mistakes."""
    reader = _Reader(source)
    found = reader.file(parse_toml(text, source))
    raise_if_any(reader.mistakes)
    return found


class _Reader:
    """Walks the tables of one file and collects what is wrong with them, in the order of the file's keys."""

    def __init__(self, source: str) -> None:
        self.mistakes = Mistakes(source)
        self._report = self.mistakes.report

    def file(self, data: Mapping[str, Any]) -> PolicyFile:
        self.mistakes.unknown_keys(data, ("mode", "default", "policy"), "")
        mode = data.get("mode", "any")
        if mode not in list(Mode):
            self._report("mode", f"expected {one_of(Mode)}, got {show(mode)}{nearest(mode, Mode)}")
        default = data.get("default", 1.0)
        if mode == "any" and "default" in data:
            self._report(
                "default", "only mode first_match has a default; in mode any, end with a policy of type probabilistic"
            )
        elif not _is_probability(default):
            self._report("default", f"expected a number from 0 to 1, got {show(default)}")
        tables = data.get("policy", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._report("policy", f"expected tables headed [[policy]], got {show(tables)}")
            tables = []
        elif not tables:
            self._report("", "no policies; expected at least one table headed [[policy]]")
        policies = [self._policy(table, f"policy[{i}]", nested=False) for i, table in enumerate(tables)]
        self._check_names(policies)
        if mode == "first_match":
            self._check_reached(policies)
        elif policies and all(isinstance(policy, Drop) for policy in policies):
            self._report("policy", "all policies are of type drop, so no trace would ever be kept; add one that keeps")
        if self.mistakes.found:
            return PolicyFile(mode=Mode.ANY, default=1.0, policies=())
        return PolicyFile(mode=Mode(mode), default=float(default), policies=tuple(p for p in policies if p is not None))

    def _policy(self, table: Mapping[str, Any], path: str, *, nested: bool) -> Condition | None:
        """One policy; None if anything in it is wrong."""
        if path.count(".policies[") > _DEEPEST:
            self._report(path, f"policies are nested deeper than {_DEEPEST} levels; join them with fewer")
            return None
        kind = table.get("type")
        if kind is None:
            self._report(f"{path}.type", f"missing; expected {one_of(POLICIES)}")
            return None
        if not isinstance(kind, str) or kind not in POLICIES:
            self._report(f"{path}.type", f"expected {one_of(POLICIES)}, got {show(kind)}{nearest(kind, POLICIES)}")
            return None
        if nested and POLICIES[kind] is Drop:
            self._report(f"{path}.type", "drop is only allowed at the top of a policy file; use not here")
            return None
        fields = fields_of(POLICIES[kind])
        before = len(self.mistakes.found)
        self.mistakes.unknown_keys(table, ["type", *fields], path)
        read = {name: field for name, field in fields.items() if name in table or field.required}
        values = {name: self._value(field, table, path) for name, field in read.items() if name != "policies"}
        sound = len(self.mistakes.found) == before
        if "policies" in read:
            values["policies"] = self._sub_policies(table.get("policies"), f"{path}.policies")
        if not sound:
            return None
        if not nested and not values.get("name"):
            values["name"] = kind
        # Made even if a sub-policy is wrong, so that contradictions beside it are reported together with it.
        policy = POLICIES[kind](**values)
        for field_name, problem in policy.problems():
            self._report(f"{path}.{field_name}" if field_name else path, problem)
        return policy if len(self.mistakes.found) == before else None

    def _value(self, field: msgspec.structs.FieldInfo, table: Mapping[str, Any], path: str) -> Any:
        """The value of one setting, converted; None after a report."""
        here = f"{path}.{field.name}"
        if field.name not in table:
            self._report(here, f"missing; expected {describe(field)}")
            return None
        return self.mistakes.value(field, table[field.name], here)

    def _sub_policies(self, tables: Any, path: str) -> tuple[Condition, ...]:
        """The sub-policies; a wrong one is replaced by one that contradicts nothing, so that the others keep their index."""
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            got = "missing" if tables is None else f"got {show(tables)}"
            self._report(path, f"expected a list of at least one policy table, {got}")
            return ()
        policies = [self._policy(table, f"{path}[{i}]", nested=True) for i, table in enumerate(tables)]
        return tuple(policy or Always() for policy in policies)

    def _check_names(self, policies: list[Condition | None]) -> None:
        """Names are unique, and none resembles one that the evaluator gives."""
        seen: dict[str, int] = {}
        for index, policy in enumerate(policies):
            if policy is None:
                continue
            if policy.name.startswith("("):
                self._report(f"policy[{index}].name", f"names in brackets are reserved, got {show(policy.name)}")
            first = seen.setdefault(policy.name, index)
            if first != index:
                self._report(
                    f"policy[{index}].name",
                    f"{show(policy.name)} is already the name of policy[{first}] (the default name of a policy is its "
                    "type); give each policy another name",
                )

    def _check_reached(self, policies: list[Condition | None]) -> None:
        """In first_match, nothing follows a policy that matches every trace."""
        end = next((i for i, policy in enumerate(policies) if policy is not None and policy.unconditional), None)
        if end is not None:
            for index in range(end + 1, len(policies)):
                self._report(
                    f"policy[{index}]",
                    f"never reached, because policy[{end}] matches every trace; move policy[{end}] to the end",
                )


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0
