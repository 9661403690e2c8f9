"""A client sends the trace only if it was asked to, and only to the hosts that were named."""

import httpx2
import pytest

from prela_stream.instrumentation.http.httpx import propagate, stop_propagating
from prela_stream.testing import CapturedSpans
from prela_stream.tracing.context import new_trace_context
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


async def test_clients_send_nothing_without_propagate(captured: CapturedSpans, client: httpx2.AsyncClient) -> None:
    with tracer.span("caller"):
        assert (await client.get("/headers")).text == ""
        propagate(client)
        assert (await client.get("/headers")).text == "traceparent,tracestate"
        with new_trace_context(baggage={"user": "7"}), tracer.span("other"):
            assert (await client.get("/headers")).text == "baggage,traceparent,tracestate"
        stop_propagating(client)
        assert (await client.get("/headers")).text == ""
    propagate(client)
    assert (await client.get("/headers")).text == ""
    assert captured.find("caller").inject_count == 1


async def test_only_named_hosts_get_the_trace_also_over_redirects(
    captured: CapturedSpans, client: httpx2.AsyncClient
) -> None:
    propagate(propagate(client), hosts=["service"])
    client.follow_redirects = True
    with tracer.span("caller"):
        assert (await client.get("http://elsewhere/headers")).text == ""
        assert (await client.get("/redirects")).text == "2"
    assert captured.find("caller").inject_count == 1
    assert [span.parent_span_id is None for span in captured.roots] == [True, True]
    assert captured.find("GET /redirects").parent_span_id == captured.find("caller").span_id


def test_a_sync_client(captured: CapturedSpans) -> None:
    seen: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("traceparent"))
        return httpx2.Response(200)

    before: list[httpx2.Request] = []
    hooks = {"request": [before.append]}
    client = propagate(httpx2.Client(transport=httpx2.MockTransport(answer), event_hooks=hooks))
    with client, tracer.span("caller") as span:
        client.get("http://x/")
    assert [str(value).split("-")[2] for value in seen] == [span.span_id]
    assert len(before) == 1


@pytest.mark.parametrize("wrong", [None, object(), "client", httpx2])
def test_anything_but_a_client_is_rejected(wrong: object) -> None:
    with pytest.raises(TypeError, match="takes a Client or AsyncClient"):
        propagate(wrong)
