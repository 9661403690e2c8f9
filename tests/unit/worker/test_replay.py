"""A replay rebuilds the open traces. It counts nothing and writes nothing twice."""

from prela_stream.codec.spans import decode_batch, encode_batch, encode_item
from prela_stream.model.span import ItemKind
from prela_stream.worker.replay import Replay

ONE, TWO = b"1" * 16, b"2" * 16


def covers(trace_id: bytes, offset: int) -> bool:
    """The first trace is decided, with its items below offset 10."""
    return trace_id == ONE and offset < 10


def test_items_of_committed_decisions_are_skipped_and_the_others_keep_their_indexes() -> None:
    items = [
        encode_item(ItemKind.SPAN, ONE, b"a" * 8),
        encode_item(ItemKind.TICK),
        encode_item(ItemKind.SPAN, TWO, b"b" * 8),
        encode_item(ItemKind.SPAN, ONE, b"c" * 8),
    ]
    batch = decode_batch(encode_batch(b"\x80", items))
    replay = Replay(20, covers)
    left = replay.admit(batch, 9)
    assert (list(left.raws), list(left.indexes)) == ([items[1], items[2]], [1, 2])
    assert [head.trace_id for head in left.heads] == [None, TWO]
    assert replay.admit(batch, 10) is batch


def test_late_spans_are_written_only_for_decisions_of_the_replay() -> None:
    replay = Replay(20, covers)
    assert not replay.writes_late(ONE)
    replay.decided(TWO)
    assert replay.writes_late(TWO)
    assert not replay.writes_late(ONE)
