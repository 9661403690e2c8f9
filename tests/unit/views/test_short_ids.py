"""Short ids: unique in a list, and long enough to name one trace of a store."""

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.views.short_ids import SHORT_ID, short_id, short_ids

hex_ids = st.text("0123456789abcdef", min_size=32, max_size=32)


def test_the_zeros_of_an_id_of_64_bits_are_not_counted() -> None:
    assert short_id("0" * 16 + "463ac35c9f6413ad") == "0" * 16 + "463ac35c9f64"
    assert short_id("463ac35c9f6413ad" * 2) == "463ac35c9f64"
    assert short_id("0001" * 8) == "000100010001"


def test_ids_that_share_their_first_digits_get_more() -> None:
    one, other = "a" * 31 + "b", "a" * 31 + "c"
    assert short_ids([one, other]) == {one: one, other: other}


@given(st.lists(hex_ids, max_size=20))
def test_each_fits_its_own_id_only(ids: list[str]) -> None:
    found = short_ids(ids)
    for trace_id, short in found.items():
        assert [one for one in found if one.startswith(short)] == [trace_id]
        assert len(short) >= SHORT_ID
        assert trace_id.startswith(short)
