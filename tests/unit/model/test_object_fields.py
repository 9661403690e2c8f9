"""Objects are read by the fields that their classes declare, and by nothing else."""

import dataclasses
import types
from argparse import Namespace
from typing import Any, NamedTuple

import msgspec
import pydantic
import pydantic.v1
import pytest

from prela_stream.model.object_fields import EXCLUDED, HIDDEN, declared_fields
from prela_stream.model.plain import CONCEALED, plain


@dataclasses.dataclass
class Doc:
    title: str
    key: str = dataclasses.field(default="sk-1", repr=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: int


class Named(NamedTuple):
    x: int
    y: Any


class Tagged(msgspec.Struct, tag="tagged", rename="camel"):
    some_name: int
    unset: int | msgspec.UnsetType = msgspec.UNSET


class Chapter(pydantic.BaseModel):
    title: str
    text: str = ""


class Plan(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    goal: str
    chapters: list[Chapter] = []
    password: pydantic.SecretStr = pydantic.SecretStr("hush")
    token: str = pydantic.Field(default="sk-2", repr=False)
    internal: str = pydantic.Field(default="x", exclude=True)

    @property
    def lazy(self) -> str:
        raise RuntimeError("this loads from a database")


class Numbers(pydantic.RootModel[list[int]]):
    pass


@pydantic.dataclasses.dataclass
class Validated:
    a: int


class Old(pydantic.v1.BaseModel):
    a: int
    key: str = pydantic.v1.Field("sk-3", repr=False)


def unset(value: Any, name: str) -> Any:
    delattr(value, name)
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Doc("t"), {"title": "t", "key": HIDDEN}),
        (Slotted(1, 2), {"a": 1, "b": 2}),
        (unset(Slotted(1, 2), "b"), {"a": 1}),
        (Named(1, {2}), {"x": 1, "y": [2]}),
        (Tagged(some_name=1), {"type": "tagged", "someName": 1}),
        (types.SimpleNamespace(a=1, b=Doc("t")), {"a": 1, "b": {"title": "t", "key": HIDDEN}}),
        (Namespace(verbose=True), {"verbose": True}),
        (
            Plan(goal="g", chapters=[Chapter(title="one"), Chapter(title="two")], more={1}),  # type: ignore[call-arg]
            {
                "goal": "g",
                "chapters": [{"title": "one", "text": ""}, {"title": "two", "text": ""}],
                "password": CONCEALED,
                "token": HIDDEN,
                "internal": EXCLUDED,
                "more": [1],
            },
        ),
        (Chapter.model_construct(text="unfinished"), {"text": "unfinished"}),
        (Numbers([1, 2]), [1, 2]),
        (Validated(a=1), {"a": 1}),
        (Old(a=1, key="sk-3"), {"a": 1, "key": HIDDEN}),
        ({"inside": [Doc("t")]}, {"inside": [{"title": "t", "key": HIDDEN}]}),
    ],
)
def test_declared_fields_are_stored_by_name(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_attrs_classes_are_stored_by_their_fields() -> None:
    attrs = pytest.importorskip("attrs")
    made: Any = attrs.make_class(
        "Made", {"a": attrs.field(), "key": attrs.field(repr=False), "late": attrs.field(init=False)}
    )
    assert plain(made(1, "sk-4")) == {"a": 1, "key": HIDDEN}
    slotless: Any = attrs.make_class("Slotless", ["a"], slots=False)
    assert plain(slotless({2})) == {"a": [2]}


def test_a_field_that_raises_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)

    @dataclasses.dataclass
    class Row:
        id: int
        relation: Any = None

    Row.relation = property(lambda _: 1 / 0)
    row = object.__new__(Row)
    row.__dict__["id"] = 7
    assert plain(row) == {"id": 7, "relation": "<ZeroDivisionError when it was read>"}


class Client:
    """It declares no fields, so its key stays where it is."""

    __slots__ = ("api_key",)

    def __init__(self) -> None:
        self.api_key = "sk-5"


@pytest.mark.parametrize("value", [Client(), types.SimpleNamespace, Doc, Plan, object(), 1, [1]])
def test_other_objects_have_no_declared_fields(value: object) -> None:
    assert declared_fields(value) is None
    assert "sk-" not in str(plain(value))
