"""Ids in every form that a format uses give the same bytes."""

import base64

import pytest

from prela_stream.errors import CodecError
from prela_stream.otel.ids import id_of, id_or_hash

TRACE = bytes.fromhex("5b8efff798038103d269b633813fc60c")
SPAN = bytes.fromhex("eee19b7ec3c1b174")


@pytest.mark.parametrize(
    "form",
    [
        TRACE,
        TRACE.hex(),
        TRACE.hex().upper(),
        f"0x{TRACE.hex()}",
        f" {TRACE.hex()} ",
        base64.b64encode(TRACE).decode(),
        base64.urlsafe_b64encode(TRACE).decode().rstrip("="),
        int.from_bytes(TRACE, "big"),
        str(int.from_bytes(TRACE, "big")),
        "5b8efff7-9803-8103-d269-b633813fc60c",
    ],
)
def test_a_trace_id_in_any_form(form: object) -> None:
    assert id_of(form, 16, "trace id") == TRACE


@pytest.mark.parametrize("form", [SPAN, SPAN.hex(), base64.b64encode(SPAN).decode(), int.from_bytes(SPAN, "big")])
def test_a_span_id_in_any_form(form: object) -> None:
    assert id_of(form, 8, "span id") == SPAN


def test_a_short_trace_id_is_padded_on_the_left() -> None:
    assert id_of(SPAN.hex(), 16, "trace id") == bytes(8) + SPAN


@pytest.mark.parametrize("form", [None, "", "zz", "0" * 32, 0, -1, 1 << 128, True, [], "x" * 100, TRACE[:15], 1.5])
def test_no_id(form: object) -> None:
    with pytest.raises(CodecError, match="trace id"):
        id_of(form, 16, "trace id")


def test_a_name_becomes_its_hash() -> None:
    assert id_or_hash("run-1", 16, "trace id") == id_or_hash("run-1", 16, "trace id")
    assert len(id_or_hash("run-1", 8, "span id")) == 8
    assert id_or_hash(TRACE.hex(), 16, "trace id") == TRACE
    with pytest.raises(CodecError):
        id_or_hash("", 16, "trace id")
