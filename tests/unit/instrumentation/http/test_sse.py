"""Server-sent events come out whole however the bytes are cut."""

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.instrumentation.http.sse import EventParser

EVENTS: list[dict[str, Any]] = [
    {"type": "ping"},
    {"type": "content_block_delta", "delta": {"text": "größer\n\ndata: 😀"}},
    {"type": "message_stop"},
]


def wire(newline: str) -> bytes:
    lines = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in EVENTS]
    return (": a comment\n" + "".join(lines)).replace("\n", newline).encode()


@given(cuts=st.lists(st.integers(0, 300), max_size=20), newline=st.sampled_from(["\n", "\r\n"]))
def test_any_cut_gives_the_same_events(cuts: list[int], newline: str) -> None:
    data = wire(newline)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parser = EventParser()
    found: list[dict[str, Any]] = []
    for start, stop in itertools.pairwise(edges):
        found += parser.feed(data[start:stop])
    assert found == EVENTS


def test_data_of_several_lines_is_one_event() -> None:
    assert EventParser().feed(b'data: {"type":\ndata: "ping"}\n\n') == [{"type": "ping"}]


def test_an_event_without_its_blank_line_does_not_count_yet() -> None:
    parser = EventParser()
    assert parser.feed(b'data: {"type": "ping"}\n') == []
    assert parser.feed(b"\n") == [{"type": "ping"}]


def test_data_that_is_no_json_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        EventParser().feed(b"data: [DONE]\n\n")
