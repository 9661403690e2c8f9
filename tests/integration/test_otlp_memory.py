"""The memory of a real `prela-stream otlp` while it gets bombs: its peak is bounded, and the next request is served."""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest

from tests.support.otlp import JSON, PROTOBUF, Answer, request, send
from tests.support.otlp_process import Receiver, receiver
from tests.support.processes import DEADLINE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is in /proc"),
]
MIB: Final = 1 << 20
BOUND: Final = 400_000_000
EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
GOOD: Final = request({"name": "good"}).SerializeToString()


def field(number: int, content: bytes) -> bytes:
    """A field with bytes as protobuf writes it."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def of_span(*fields: bytes) -> bytes:
    """A request with one span."""
    return field(1, field(2, field(2, field(1, b"1" * 16) + field(2, b"2" * 8) + b"".join(fields))))


def of_json(attributes: str) -> bytes:
    """A request in JSON whose span has these attributes."""
    ids = f'"traceId": "{"1" * 32}", "spanId": "{"2" * 16}"'
    return f'{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{{ids}, "attributes": {attributes}}}]}}]}}]}}'.encode()


def bomb(mebibytes: int) -> bytes:
    """Gzip data of zeros in members of 4 MiB."""
    return gzip.compress(bytes(4 * MIB), 9) * (mebibytes // 4)


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 1)


LONG: Final = "x" * (10 * MIB)
ATTACKS: Final[dict[str, tuple[bytes, str, int]]] = {
    "bombs as large as the limit": (bomb(20), PROTOBUF, 20),
    "bombs beyond the limit": (bomb(24), PROTOBUF, 20),
    "a bomb of 1 GiB": (bomb(1024), PROTOBUF, 1),
    "deep JSON": (packed(b"[" * (19 * MIB)), JSON, 4),
    "deep attributes": (packed(of_json('{"k":' + '{"arrayValue":{"values":[' * 100_000)), JSON, 4),
    "attributes of 10 MiB": (packed(request({"attributes": {"a": LONG}}).SerializeToString()), PROTOBUF, 20),
    "attributes of 10 MiB in JSON": (packed(of_json(json.dumps({"a": LONG}))), JSON, 20),
    "many lists": (packed(b"[" + b"[]," * (6 * MIB) + b"[]]"), JSON, 4),
    "many maps in an attribute": (packed(of_json('{"k": [' + "{}," * (6 * MIB) + "{}]}")), JSON, 4),
    "many empty spans": (packed(field(1, field(2, b"\x12\x00" * (9 * MIB)))), PROTOBUF, 4),
    "many empty resources": (packed(b"\x0a\x00" * (9 * MIB)), PROTOBUF, 4),
    "many empty attributes": (packed(of_span(b"\x4a\x00" * (9 * MIB))), PROTOBUF, 4),
    "many values of an attribute": (
        packed(of_span(field(9, field(1, b"k") + field(2, field(5, b"\x0a\x00" * (9 * MIB)))))),
        PROTOBUF,
        4,
    ),
    "a span that is none": (packed(b"\x0b" * (19 * MIB)), PROTOBUF, 1),
}
"""A compressed body, its type, and how many are sent at once."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One receiver for all attacks: what one leaves behind counts for the next."""
    with receiver(tmp_path_factory.mktemp("otlp")) as found:
        yield found


def attack(running: Receiver, body: bytes, kind: str, times: int) -> Sequence[Answer]:
    headers = {"content-type": kind, "content-encoding": "gzip"}
    with ThreadPoolExecutor(times) as pool:
        sent = [pool.submit(send, running.address, "POST", "/v1/traces", headers, body) for _ in range(times)]
        return [one.result(DEADLINE) for one in sent]


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_over_http(name: str, running: Receiver) -> None:
    answers = attack(running, *ATTACKS[name])
    assert {answer.status for answer in answers} <= {200, 400, 413, 503}
    assert all(answer.body for answer in answers if answer.status != 200)
    assert send(running.address, "POST", "/v1/traces", {"content-type": PROTOBUF}, GOOD).status == 200
    assert running.peak_bytes() < BOUND


def test_refused_requests_are_not_kept(running: Receiver) -> None:
    for _ in range(20):
        (answer,) = attack(running, *ATTACKS["a span that is none"])
        assert answer.status == 400
    assert running.peak_bytes() < BOUND


GRPC: Final[dict[str, tuple[bytes, Any]]] = {
    "requests near the limit": (bytes(19 * MIB), None),
    "compressed requests near the limit": (bytes(19 * MIB), grpc.Compression.Gzip),
    "bombs": (bytes(64 * MIB), grpc.Compression.Gzip),
    "attributes of 10 MiB": (request({"attributes": {"a": LONG}}).SerializeToString(), None),
}


@pytest.mark.parametrize("name", GRPC)
def test_attacks_over_grpc(name: str, running: Receiver) -> None:
    body, compression = GRPC[name]

    def export(content: bytes, how: Any) -> str:
        own = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
        with grpc.insecure_channel(running.grpc_address, options=own) as channel:
            try:
                channel.unary_unary(EXPORT)(content, compression=how, timeout=DEADLINE, wait_for_ready=True)
            except grpc.RpcError as error:
                return str(error.code().name)  # type: ignore[attr-defined]
            return "OK"

    with ThreadPoolExecutor(20) as pool:
        codes = set(pool.map(export, [body] * 20, [compression] * 20))
    assert codes <= {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
    assert export(GOOD, None) == "OK"
    assert running.peak_bytes() < BOUND
