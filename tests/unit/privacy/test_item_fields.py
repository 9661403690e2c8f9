"""The order of an item's fields is the same in the agent, in the codec and in the reader that knows only docs/wire.md."""

from prela_stream.model.span import SpanHead
from prela_stream.privacy.item_fields import Fields
from tests.support.plain_reader import ITEM


def test_the_agent_writes_the_fields_in_the_order_in_which_the_codec_reads_them() -> None:
    assert Fields._fields == SpanHead.__struct_fields__


def test_the_independent_reader_has_the_same_order() -> None:
    assert tuple(ITEM) == SpanHead.__struct_fields__
