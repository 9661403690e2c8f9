"""Tagged fields of newer requests and answers."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.transport.kafka.admin.tags import Tags


@pytest.mark.parametrize(
    ("value", "encoded"), [({}, b"\0"), ({0: b"ab"}, b"\1\0\2ab"), ({300: b"", 2: b"x"}, b"\2\2\1x\xac\2\0")]
)
def test_encoding(value: dict[int, bytes], encoded: bytes) -> None:
    """The bytes are those of KIP-482: a count, then number, length and content of each field."""
    assert Tags.encode(value) == encoded


@given(st.dictionaries(st.integers(0, 2**31 - 1), st.binary(max_size=300), max_size=5), st.binary(max_size=5))
def test_fields_of_a_newer_broker_are_read_and_what_follows_is_left(value: dict[int, bytes], rest: bytes) -> None:
    data = BytesIO(Tags.encode(value) + rest)
    assert Tags.decode(data) == value
    assert data.read() == rest
