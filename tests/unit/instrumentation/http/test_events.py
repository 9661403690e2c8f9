"""The first bytes of a streamed answer decide how it is decoded."""

import pytest

from prela_stream.instrumentation.http.events import EventDecoder
from prela_stream.instrumentation.http.sse import StreamEvent
from tests.support.model_api import aws_message

EVENT = StreamEvent("ping", b"{}")


@pytest.mark.parametrize(
    "body",
    [
        b"event: ping\ndata: {}\n\n",
        b"\xef\xbb\xbf\r\n\r\nevent: ping\ndata: {}\n\n",
        b": first\n\nevent: ping\ndata: {}\n\n",
    ],
)
def test_server_sent_events(body: bytes) -> None:
    decoder = EventDecoder()
    assert [event for at in range(len(body)) for event in decoder.feed(body[at : at + 1])] == [EVENT]
    assert decoder.document is None


def test_an_event_stream_of_amazon() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(aws_message({":event-type": "ping"}, b"{}"))) == [EVENT]


def test_one_json_document() -> None:
    decoder = EventDecoder()
    for part in (b"\n ", b' {"type":', b' "message"}'):
        assert list(decoder.feed(part)) == []
    assert decoder.document == b'\n  {"type": "message"}'


def test_nothing_at_all() -> None:
    decoder = EventDecoder()
    assert list(decoder.feed(b"")) == []
    assert decoder.document is None
