"""Amazon's event stream gives the events inside it, and an exception in it is an event named `error`."""

import base64
import binascii
import itertools
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.instrumentation.http.aws_events import AwsEventDecoder
from prela_stream.instrumentation.http.sse import StreamEvent
from tests.support.model_api import aws_message

CHUNK = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
FAILED = {":exception-type": "throttlingException", ":message-type": "exception"}
WRAPPED = json.dumps({"bytes": base64.b64encode(b'{"type": "ping"}').decode(), "p": "abcd"}).encode()


@given(cuts=st.lists(st.integers(0, 600), max_size=12))
def test_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    data = aws_message(CHUNK, WRAPPED) + aws_message({":event-type": "other"}, b"raw") + aws_message(CHUNK, b"not json")
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = AwsEventDecoder()
    found: list[StreamEvent] = []
    for start, stop in itertools.pairwise(edges):
        found += decoder.feed(data[start:stop])
    assert found == [
        StreamEvent("chunk", b'{"type": "ping"}'),
        StreamEvent("other", b"raw"),
        StreamEvent("chunk", b"not json"),
    ]


@pytest.mark.parametrize(
    ("headers", "payload", "kind", "message"),
    [
        (FAILED, b'{"message": "Too many requests"}', "throttlingException", "Too many requests"),
        (FAILED, b"in plain text", "throttlingException", "in plain text"),
        ({":error-code": "500", ":error-message": "Internal"}, b"", "500", "Internal"),
    ],
)
def test_an_exception_is_an_error_event(headers: dict[str, str], payload: bytes, kind: str, message: str) -> None:
    (event,) = AwsEventDecoder().feed(aws_message(headers, payload))
    assert event.name == "error"
    assert json.loads(event.data) == {"type": "error", "error": {"type": kind, "message": message}}


def test_headers_of_every_type_are_passed_over() -> None:
    others = b"".join(
        bytes([1]) + b"h" + bytes([kind]) + value
        for kind, value in enumerate(
            [
                b"",
                b"",
                b"x",
                b"xx",
                b"xxxx",
                b"x" * 8,
                struct.pack(">H", 3) + b"xxx",
                struct.pack(">H", 2) + b"xx",
                b"x" * 8,
            ]
        )
    )
    (event,) = AwsEventDecoder().feed(
        aws_message(CHUNK, WRAPPED, more_headers=others + bytes([1]) + b"u\x09" + b"x" * 16)
    )
    assert event == StreamEvent("chunk", b'{"type": "ping"}')


def test_bytes_that_are_no_event_stream_are_an_error() -> None:
    broken = bytearray(aws_message(CHUNK, WRAPPED))
    broken[8] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        list(AwsEventDecoder().feed(bytes(broken)))
    too_large = struct.pack(">II", 1 << 30, 0)
    with pytest.raises(ValueError, match="checksum"):
        list(AwsEventDecoder().feed(too_large + struct.pack(">I", binascii.crc32(too_large))))
