"""Images, sounds and documents are replaced by their type and size, in the blocks of every API."""

import base64
import json
import random
from typing import Any

import pytest

from prela_stream.privacy.media import without_media
from prela_stream.testing import capture_spans
from prela_stream.tracing.tracer import get_tracer

BYTES = random.Random(7).randbytes(301)
DATA = base64.b64encode(BYTES).decode()
URL_SAFE = base64.urlsafe_b64encode(BYTES).decode()


def arrived(value: Any) -> Any:
    """The attribute as it is sent; the data is nowhere in the item."""
    with capture_spans() as captured:  # noqa: SIM117 - shows the nesting
        with get_tracer().span("x", attributes={"value": value}) as span:
            span.add_event("event", {"value": value})
    (span_data,) = captured.spans
    for data in (DATA.encode(), URL_SAFE.encode(), BYTES):
        assert data not in captured.items[0]
    assert span_data.events[0].attributes["value"] == span_data.attributes["value"]
    return span_data.attributes["value"]


def blocks(data: str) -> dict[str, tuple[Any, Any]]:
    """A block of each API, and the function that reads its data."""
    png = "[image/png, 301 bytes]"
    return {
        "anthropic": (
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}],
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}}],
        ),
        "openai chat": (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": png, "detail": "low"}},
        ),
        "openai responses": (
            {"type": "input_image", "image_url": f"data:image/png;charset=x;base64,{data}"},
            {"type": "input_image", "image_url": png},
        ),
        "openai audio": (
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "[wav, 301 bytes]", "format": "wav"}},
        ),
        "openai file": (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "[application/pdf, 301 bytes]"}},
        ),
        "openai images": ({"data": [{"b64_json": data}]}, {"data": [{"b64_json": "[media, 301 bytes]"}]}),
        "openai generated": (
            {"type": "image_generation_call", "output_format": "png", "result": data},
            {"type": "image_generation_call", "output_format": "png", "result": "[png, 301 bytes]"},
        ),
        "gemini": (
            {"inline_data": {"mime_type": "image/png", "data": data}},
            {"inline_data": {"mime_type": "image/png", "data": png}},
        ),
        "gemini bytes": (
            {"inlineData": {"mimeType": "image/png", "data": BYTES}},
            {"inlineData": {"mimeType": "image/png", "data": png}},
        ),
        "bedrock": (
            {"image": {"format": "png", "source": {"bytes": BYTES}}},
            {"image": {"format": "png", "source": {"bytes": "[media, 301 bytes]"}}},
        ),
    }


@pytest.mark.parametrize("api", list(blocks(DATA)))
@pytest.mark.parametrize("data", [DATA, URL_SAFE], ids=["standard", "url-safe"])
def test_blocks(api: str, data: str) -> None:
    block, expected = blocks(data)[api]
    assert arrived(block) == expected


@pytest.mark.parametrize("api", ["anthropic", "openai chat", "openai images", "openai file"])
def test_blocks_in_json_text_also_within_json_text(api: str) -> None:
    block, _ = blocks(DATA)[api]
    once = arrived(json.dumps(block))
    assert "301 bytes]" in once
    json.loads(once)
    assert "301 bytes]" in json.loads(arrived(json.dumps({"inner": json.dumps(block)})))["inner"]


def test_data_urls_in_text() -> None:
    text = f"![a](data:image/png;base64,{DATA}) and <img src='data:;base64,{DATA}'> and data:text/plain,hello"
    assert (
        arrived(text)
        == "![a]([image/png, 301 bytes]) and <img src='[text/plain, 301 bytes]'> and data:text/plain,hello"
    )


def test_what_is_no_media_stays() -> None:
    kept = {
        "data": "0123456789abcdef" * 8,
        "bytes": 7,
        "why": "base64 is a way to write bytes, mime or not, audio or not",
        "words": "data:image/png;base64,",
        "result": DATA,
        "id": "A" * 100,
    }
    with capture_spans() as captured:
        get_tracer().span("x", attributes=kept).end()
    assert captured.spans[0].attributes == kept


def test_an_image_larger_than_a_record_leaves_the_words_beside_it_whole() -> None:
    image = base64.b64encode(random.Random(1).randbytes(900_000)).decode()
    words = "w" * 500_000
    content = [
        {"type": "text", "text": words},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}},
    ]
    with capture_spans() as captured:
        get_tracer().span("x", attributes={"messages": content}).end()
    sent = captured.spans[0].attributes
    assert sent["messages"][0]["text"] == words
    assert sent["messages"][1]["source"]["data"] == "[image/png, 900000 bytes]"
    assert "prela.truncated" not in sent


def test_data_that_is_declared_as_base64_is_replaced_at_any_length() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAECAw=="}
    once = without_media({"content": [{"source": source}, {"type": "other", "data": "AAECAw=="}]})
    assert once["content"][0]["source"]["data"] == "[image/png, 4 bytes]"
    assert once["content"][1]["data"] == "AAECAw=="
    assert without_media(once) == once
