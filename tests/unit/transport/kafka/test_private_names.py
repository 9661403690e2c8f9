"""The private names of aiokafka: each listed one exists in the installed version, and no other one is used."""

import ast
import importlib
import inspect
import re
import textwrap
import tomllib
from pathlib import Path

import aiokafka
import pytest

from prela_stream.transport import kafka
from prela_stream.transport.findings import Finding
from prela_stream.transport.kafka.doctor.checks import check_aiokafka
from prela_stream.transport.kafka.private_names import PRIVATE_NAMES, is_tested
from prela_stream.transport.options import AIOKAFKA_TESTED

LISTED = [(one.owner, name) for one in PRIVATE_NAMES for name in one.names]
FOLDER = Path(kafka.__file__).parent
PRIVATE = re.compile(r"_[a-zA-Z]\w*")
PYPROJECT = Path(__file__).parents[4] / "pyproject.toml"


def is_defined(owner: str, name: str) -> bool:
    """Whether a class has this attribute, or one of its methods assigns it to an instance."""
    module, _, class_name = owner.partition(":")
    kind = getattr(importlib.import_module(module), class_name)
    return hasattr(kind, name) or any(
        name in assigned(one) for one in kind.__mro__ if one.__module__ not in ("builtins", "abc", "typing")
    )


def assigned(kind: type) -> set[str]:
    """The attributes that the methods of a class assign to `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value)
    }


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_names(source: str) -> set[str]:
    """Private attributes that a module reads from objects of other modules: `x._name`, `self.x._name`, "_name" in a string.

    `self._name` is the module's, if a class of the module defines it. Names of types (`_TypeName`) are the module's too.
    """
    tree = ast.parse(source)
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
            if not (is_self(node.value) and node.attr in own | stored):
                found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PRIVATE.fullmatch(node.value):
            found.add(node.value)
    return found


@pytest.mark.parametrize(("owner", "name"), LISTED)
def test_each_listed_name_exists_in_the_installed_version(owner: str, name: str) -> None:
    assert is_defined(owner, name), f"aiokafka {aiokafka.__version__}: {owner} has no {name}, see private_names.py"


def test_a_name_that_does_not_exist_is_found_missing() -> None:
    assert not is_defined("aiokafka.client:AIOKafkaClient", "_no_such_name")


def test_no_other_private_name_is_used() -> None:
    used = {
        name: path.name
        for path in sorted(FOLDER.rglob("*.py"))
        if path.name != "private_names.py"
        for name in private_names(path.read_text(encoding="utf-8"))
    }
    listed = {name for _, name in LISTED}
    assert {name: path for name, path in used.items() if name not in listed} == {}, "list them in private_names.py"
    assert listed - used.keys() == set(), "nothing uses these any more"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("client._conns", {"_conns"}),
        ("self._kafka._coordinator.check()", {"_kafka", "_coordinator"}),
        ("class A:\n def f(self):\n  self._own = 1\n  return self._own", set()),
        ("getattr(x, '_task', None)", {"_task"}),
        ("x.public", set()),
    ],
)
def test_a_use_of_a_private_name_is_found(source: str, expected: set[str]) -> None:
    assert private_names(source) == expected


def test_the_bounds_are_those_of_the_package() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    assert f"aiokafka{AIOKAFKA_TESTED}" in project["dependencies"]


@pytest.mark.parametrize(
    ("version", "tested"),
    [("0.14.0", True), ("0.14.7", True), ("0.13.1", False), ("0.15.0", True), ("0.15.0rc1", True), ("0.16.0", False)],
)
def test_doctor_reports_a_version_that_was_not_tested(version: str, tested: bool) -> None:
    found: Finding = check_aiokafka(version)
    assert (is_tested(version), found.state == "ok") == (tested, tested)
    assert version in found.text
    assert tested or AIOKAFKA_TESTED in found.text
