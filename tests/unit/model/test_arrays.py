"""Arrays become a note with type and shape; small ones in main memory keep their numbers."""

import array
from typing import Any

import pytest

from prela_stream.model.arrays import array_note, is_array
from prela_stream.model.plain import plain


class Tensor:
    """As of torch or jax: reading its numbers would wait for a device."""

    dtype: Any = property(lambda _: "float16")
    shape: Any = property(lambda _: (32, 1536))

    def tolist(self) -> Any:
        raise AssertionError("the numbers were read")

    def __repr__(self) -> str:
        raise AssertionError("the numbers were read")


class Small(Tensor):
    """As of numpy."""

    __module__ = "numpy"
    size = 4

    def tolist(self) -> Any:
        return [[1.0, 2.0], [3.0, 4.0]]


class Large(Small):
    __module__ = "numpy"
    size = 49_152

    def tolist(self) -> Any:
        raise AssertionError("the numbers were read")


class Scalar(Small):
    """A number that Python has no type for: `tolist` returns the same."""

    __module__ = "numpy"
    size = 1

    def tolist(self) -> Any:
        return self

    def __repr__(self) -> str:
        return "1.25"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Tensor(), "[Tensor float16, shape (32, 1536)]"),
        (Large(), "[Large float16, shape (32, 1536)]"),
        (Small(), [[1.0, 2.0], [3.0, 4.0]]),
        (Scalar(), "1.25"),
        (array.array("f", [1.5, 2.5]), [1.5, 2.5]),
        (array.array("d", range(1_000)), "[array d, shape (1000,)]"),
    ],
)
def test_arrays(value: object, expected: object) -> None:
    assert is_array(value)
    assert plain(value) == expected
    assert plain({"a": [value]}) == {"a": [expected]}


def test_what_only_has_a_shape_is_no_array() -> None:
    class Frame:
        shape = (2, 2)

    assert not is_array(Frame())
    assert not is_array([1.0, 2.0])


def test_a_long_name_of_a_type_is_cut() -> None:
    class Odd(Tensor):
        dtype: Any = property(lambda _: "x" * 1_000)

    assert len(array_note(Odd())) < 100
