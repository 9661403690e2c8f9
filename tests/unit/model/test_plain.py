"""What may be encoded as it is, and what becomes something that every reader can decode."""

import dataclasses
import datetime as dt
import re
from typing import Any

import msgspec
import pytest

from prela_stream.model.plain import is_plain, plain


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


def test_a_raw_value_that_is_whole_is_what_it_says() -> None:
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


def test_a_cycle_ends() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    assert not is_plain(cycle)
