"""The attributes of the counting processor become the child count and the flags of an item."""

from typing import Any

import pytest

from prela_stream.codec.spans import decode_head
from prela_stream.model.span import AFTER_END, BY_PROCESSOR, COUNTED, NOT_COUNTED, REMOTE_PARENT
from prela_stream.otel.items import encode_foreign, span_data_of
from prela_stream.otel.spans import ForeignSpan

PARENT = b"p" * 8


def foreign(attributes: dict[str, Any], **fields: Any) -> ForeignSpan:
    """A span of another tracer."""
    ids: dict[str, Any] = {"trace_id": b"t" * 16, "span_id": b"s" * 8, "name": "work", "start_ns": 1, "end_ns": 2}
    return ForeignSpan(**ids, attributes=attributes, **fields)


@pytest.mark.parametrize(
    ("attributes", "parent", "remote", "flags", "children"),
    [
        ({}, None, None, NOT_COUNTED, None),
        ({}, PARENT, None, NOT_COUNTED, None),
        ({}, PARENT, True, NOT_COUNTED | REMOTE_PARENT, None),
        ({"prela.children": 3}, None, None, BY_PROCESSOR, 3),
        ({"prela.children": 0, "prela.counted": True}, PARENT, False, BY_PROCESSOR | COUNTED, 0),
        ({"prela.children": 0, "prela.counted": True}, PARENT, None, BY_PROCESSOR | COUNTED, 0),
        ({"prela.children": 0, "prela.counted": False}, PARENT, False, BY_PROCESSOR | AFTER_END, 0),
        ({"prela.children": 0}, PARENT, True, BY_PROCESSOR | REMOTE_PARENT, 0),
        ({"prela.children": 0}, PARENT, None, BY_PROCESSOR | REMOTE_PARENT, 0),
        ({"prela.children": 0}, PARENT, False, BY_PROCESSOR, 0),
        ({"prela.children": 0, "prela.counted": True}, None, None, BY_PROCESSOR, 0),
        ({"prela.children": "3", "prela.counted": True}, PARENT, None, NOT_COUNTED | COUNTED, None),
        ({"prela.children": True}, None, None, NOT_COUNTED, None),
        ({"prela.children": -1}, None, None, NOT_COUNTED, None),
        ({"prela.children": 1 << 31}, None, None, NOT_COUNTED, None),
    ],
)
def test_the_counts_of_the_processor(
    attributes: dict[str, Any], parent: bytes | None, remote: bool | None, flags: int, children: int | None
) -> None:
    span = foreign({**attributes, "k": 1}, parent_span_id=parent, remote_parent=remote)
    head = decode_head(encode_foreign(span))
    assert (head.flags, head.child_count) == (flags, children)
    assert span_data_of(span).attributes == {"k": 1}
