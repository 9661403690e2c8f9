"""The cache of what producers wrote is bounded in bytes, however many and however large its entries are."""

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.codec.byte_cache import ByteCache


@given(st.lists(st.binary(max_size=600), max_size=60))
def test_it_returns_what_the_function_does_and_holds_no_more_than_its_limit(keys: list[bytes]) -> None:
    computed: list[bytes] = []

    def compute(key: bytes) -> bytes:
        computed.append(key)
        return key[::-1]

    cache = ByteCache(compute, 2_000)
    for key in keys:
        assert cache(key) == key[::-1]
        assert cache.held_bytes <= 2_000
    assert set(computed) == set(keys)


def test_a_known_key_is_not_computed_again() -> None:
    computed: list[bytes] = []

    def compute(key: bytes) -> bytes:
        computed.append(key)
        return key

    cache = ByteCache(compute, 2_000)
    assert [cache(b"a"), cache(b"b"), cache(b"a")] == [b"a", b"b", b"a"]
    assert computed == [b"a", b"b"]
