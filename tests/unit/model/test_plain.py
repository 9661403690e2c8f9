"""What may be encoded as it is, and what becomes something that every reader can decode."""

import dataclasses
import datetime as dt
import itertools
import re
from collections import ChainMap, Counter, UserDict, UserList, UserString, deque
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import msgspec
import pytest

from prela_stream.model.plain import is_plain, plain, safe_text


@dataclasses.dataclass(frozen=True)
class Key:
    x: int


class StructKey(msgspec.Struct, frozen=True):
    x: int


class Holder(msgspec.Struct):
    inside: Any


UNREADABLE: list[Any] = [
    {Key(1): 2},
    {StructKey(1): 2},
    [{"a": {Key(1): 2}}],
    msgspec.Raw(b""),
    msgspec.Raw(b"\x01\x02"),
    msgspec.Raw(b"\xc1"),
    msgspec.Raw(b"\xa1\xff"),
    [msgspec.Raw(b"\x93\x01")],
    {"a": (msgspec.Raw(b"\x01\x02"), msgspec.Raw(b""))},
    Holder({Key(1): 2}),
    Holder(msgspec.Raw(b"\xa1\xff")),
    Holder({(1, 2): {3: 4}}),
    {(1, 2): 3},
    {b"bytes": 1},
    {frozenset({1}): 1},
    msgspec.msgpack.Ext(5, b"x"),
    [Holder([msgspec.msgpack.Ext(5, b"x")])],
]


def described(value: object) -> str:
    """A test id that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize("value", UNREADABLE, ids=described)
def test_what_no_reader_could_decode_is_not_plain_and_becomes_so(value: Any) -> None:
    assert not is_plain({"a": value})
    made = plain({"a": value})
    assert is_plain(made)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made)) == made
    assert msgspec.json.decode(msgspec.json.encode(made)) == made


def test_a_raw_value_that_is_whole_is_decoded() -> None:
    assert plain({"a": msgspec.Raw(msgspec.msgpack.encode({"b": [1]}))}) == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    "value",
    [{}, [], (), {"a": 1, "b": [None, True, 1.5, b"x", {"c": ("d",)}]}, [[[[]]]], {"a": {"b": {"c": {}}}}],
    ids=described,
)
def test_plain_data_is_plain(value: Any) -> None:
    assert is_plain(value)


@pytest.mark.parametrize(
    "value", [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), {1, 2}, {1: 2}, Holder(1), object()], ids=described
)
def test_other_types_take_the_slow_way(value: Any) -> None:
    assert not is_plain([value])


def cycle() -> list[Any]:
    made: list[Any] = [1]
    made += [made, {"again": made}]
    return made


def shared(depth: int) -> list[Any]:
    """Few lists that a walk without bounds would visit 2 ** depth times."""
    made: list[Any] = [1]
    for _ in range(depth):
        made = [made, made]
    return made


class Endless(Mapping[int, int]):
    """Its iteration never ends."""

    def __getitem__(self, key: int) -> int:
        return key

    def __iter__(self) -> Iterator[int]:
        return itertools.count()

    def __len__(self) -> int:
        return 10**9


class EndlessList(list[int]):
    """It reports no length, and its iteration never ends."""

    def __iter__(self) -> Iterator[int]:
        return itertools.repeat(1)


def test_a_value_that_contains_itself_is_read_once() -> None:
    assert not is_plain(cycle())
    assert plain(cycle()) == [1, "<list: contains itself>", {"again": "<list: contains itself>"}]


def test_siblings_may_be_the_same_object() -> None:
    one = {"a": {1}}
    assert plain([one, one]) == [{"a": [1]}, {"a": [1]}]


@pytest.mark.parametrize(
    "value", [shared(40), Endless(), EndlessList(), [{"a": {1}} for _ in range(100_000)]], ids=type
)
def test_a_value_without_end_is_bounded_and_the_rest_is_marked(value: Any) -> None:
    assert not is_plain(value)
    made = plain(value)
    assert len(msgspec.msgpack.encode(made)) < 5_000_000
    assert re.search(r"more\]|\[more than 50,000 values\]", str(made)) is not None


def test_a_huge_number_is_not_written_out() -> None:
    assert plain(1 << 40_000_000) == "<int: 40000001 bits>"


def test_nesting_has_an_end() -> None:
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    assert not is_plain(deep)
    assert "<list: nested too deep>" in str(plain(deep))


def test_long_lists_of_numbers_are_copied_whole() -> None:
    numbers = [0.5] * 200_000
    assert plain((numbers, set(range(200_000)))) == [numbers, list(range(200_000))]
    assert plain([1, 1 << 64, -1]) == [1, str(1 << 64), -1]


def test_keys_with_the_same_text_are_both_kept() -> None:
    assert plain({1: "a", "1": "b", None: "c", (1, 2): "d", 1.5: "e"}) == {
        "1": "a",
        "1 (2)": "b",
        "None": "c",
        "(1, 2)": "d",
        "1.5": "e",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (deque([1, {2}]), [1, [2]]),
        (ChainMap({"a": 1}), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (UserList([1]), [1]),
        (UserString("text"), "text"),
        (Counter("aa"), {"a": 2}),
        (MappingProxyType({"a": {1}}), {"a": [1]}),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.items(), [["a", 1]]),
        (Path("/a/b"), "/a/b"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (Decimal("1.10"), "1.10"),
        (range(10**12), "range(0, 1000000000000)"),
        (memoryview(b"abcd")[::2], b"ac"),
    ],
    ids=described,
)
def test_what_the_standard_library_has(value: object, expected: object) -> None:
    assert plain(value) == expected


class Late:
    """Text that is made when it is needed, such as a translation."""

    def __str__(self) -> str:
        return "bonjour"


class Number(int):
    """A number whose comparisons fail."""

    def __lt__(self, other: object) -> bool:
        raise RuntimeError

    __le__ = __gt__ = __ge__ = __lt__


def released() -> memoryview:
    view = memoryview(b"x")
    view.release()
    return view


class Failing(dict[str, int]):
    def items(self) -> Any:
        raise OSError


class Untouchable:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Late(), "bonjour"),
        (Number(7), 7),
        (released(), "<memoryview: ValueError when it was read>"),
        (Failing(a=1), "<Failing: OSError when it was read>"),
        (mock.Mock(spec=str), "<Mock spec='str' "),
        (mock.MagicMock(spec=dict), "<MagicMock spec='dict' "),
        (Untouchable(), "<tests.unit.model.test_plain.Untouchable object at "),
        ((number for number in [1]), "<generator object "),
    ],
    ids=["late", "number", "released", "failing", "mock of str", "mock of dict", "untouchable", "generator"],
)
def test_hostile_values_become_notes(value: object, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    made = plain({"before": 1, "value": value, "after": 2})
    assert (made["before"], made["after"]) == (1, 2)
    found = made["value"]
    assert found.startswith(expected) if isinstance(expected, str) else found == expected


def test_a_text_form_that_reads_text_forms_ends() -> None:
    class Recursive:
        def __repr__(self) -> str:
            return f"<{safe_text(Recursive())}>"

    assert safe_text(Recursive()) == "<<Recursive: not read, because it was reached from another value>>"


def test_a_value_that_has_itself_read_is_read_once() -> None:
    class Recursive(UserDict[str, Any]):
        def items(self) -> Any:
            return [("again", plain(Recursive())), ("data", plain({"a": [1, {"b": "c"}]}))]

    assert plain(Recursive()) == {
        "again": "<Recursive: not read, because it was reached from another value>",
        "data": {"a": [1, {"b": "c"}]},
    }


def test_a_text_form_that_is_cut_is_marked() -> None:
    text = safe_text("x" * 5_000)
    assert text.endswith("… [4002 characters cut]")
    assert len(text) < 1_100
