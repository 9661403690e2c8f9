"""Server-sent events are decoded the same however the bytes are cut."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.instrumentation.http.sse import SseDecoder, StreamEvent

EVENTS = [
    StreamEvent("ping", b"{}"),
    StreamEvent("content_block_delta", 'größer\n\ndata: 😀"}'.encode()),
    StreamEvent(None, b"keep-alive"),
    StreamEvent("error", b""),
    StreamEvent("message_stop", b"[DONE]"),
]


def encoded(newline: str) -> bytes:
    text = ": a comment\n"
    for event in EVENTS:
        text += "" if event.name is None else f"event: {event.name}\n"
        text += "".join(f"data: {line}\n" for line in event.data.decode().split("\n")) + "id: 7\n\n"
    return b"\xef\xbb\xbf" + text.replace("\n", newline).encode()


@given(cuts=st.lists(st.integers(0, 400), max_size=20), newline=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_cut_gives_the_same_events(cuts: list[int], newline: str) -> None:
    data = encoded(newline)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = SseDecoder()
    found: list[StreamEvent] = []
    for start, stop in itertools.pairwise(edges):
        found += decoder.feed(data[start:stop])
    assert found == EVENTS


def test_lines_may_end_with_a_carriage_return_alone() -> None:
    """The last event does not wait for more bytes, although its CR may be half of a CR LF: the body may end there."""
    assert list(SseDecoder().feed(b"event: a\rdata: 1\r\rdata: 2\r\r")) == [
        StreamEvent("a", b"1"),
        StreamEvent(None, b"2"),
    ]


def test_an_event_without_its_blank_line_is_not_complete() -> None:
    decoder = SseDecoder()
    assert list(decoder.feed(b'data: {"type": "ping"}\n')) == []
    assert list(decoder.feed(b"\n")) == [StreamEvent(None, b'{"type": "ping"}')]


def test_a_name_without_data_is_an_event() -> None:
    assert list(SseDecoder().feed(b"event: error\n\n\n\ndata\n\n")) == [
        StreamEvent("error", b""),
        StreamEvent(None, b""),
    ]
