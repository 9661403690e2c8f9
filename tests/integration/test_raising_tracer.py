"""1,000 calls with a tracer that fails whatever it is asked for: each gives the application its result, for every client."""

import gc
import json
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from prela_stream import telemetry
from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.tracing.span import Span
from prela_stream.tracing.tracer import Tracer
from tests.support import openai_api
from tests.support.model_api import sse

CALLS = 1_000
MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", "stop_sequence": None,
    "content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def replies(request: httpx2.Request) -> httpx2.Response:
    """The answer of either API, streamed if the request asks for it."""
    is_stream = json.loads(request.content).get("stream")
    if request.url.path.endswith("/messages"):
        events = sse({"type": "message_start", "message": MESSAGE}, {"type": "message_stop"})
        return httpx2.Response(200, content=events) if is_stream else httpx2.Response(200, json=MESSAGE)
    if is_stream:
        return httpx2.Response(200, content=b"".join(openai_api.chat_stream("hello")))
    return httpx2.Response(200, json=openai_api.chat_answer("hello"))


def anthropic_calls() -> list[Any]:
    transport = httpx2.Client(transport=httpx2.MockTransport(replies))
    client = anthropic.Anthropic(api_key="k", base_url="http://m", http_client=transport)
    found: list[Any] = []
    for _ in range(CALLS // 2):
        found.append(client.messages.create(**ASKED, max_tokens=9))
        found.append(list(client.messages.create(**ASKED, max_tokens=9, stream=True)))
    return found


def openai_calls() -> list[Any]:
    transport = httpx2.Client(transport=httpx2.MockTransport(replies))
    client = openai.OpenAI(api_key="k", base_url="http://m", http_client=transport)
    found: list[Any] = []
    for _ in range(CALLS // 2):
        found.append(client.chat.completions.create(**ASKED))
        found.append(list(client.chat.completions.create(**ASKED, stream=True)))
    return found


CLIENTS: dict[str, Callable[[], list[Any]]] = {"anthropic": anthropic_calls, "openai": openai_calls}


def fail(*_: object, **__: object) -> Any:
    msg = "the tracer is broken"
    raise LookupError(msg)


def methods(owner: type) -> list[str]:
    """Every method of a class but its construction."""
    names = [name for name in dir(owner) if callable(getattr(owner, name)) and not name.startswith("__")]
    assert len(names) > 5
    return names


@pytest.mark.parametrize("broken", [Tracer, Span])
@pytest.mark.parametrize("name", CLIENTS)
def test_every_call_gives_its_result(name: str, broken: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "0")
    expected = CLIENTS[name]()
    before = telemetry.SWALLOWED.value("instrumentation.llm_call", "LookupError")
    tracer = Tracer()
    assert auto_instrument(tracer, names=[name]) == [name]
    try:
        with monkeypatch.context() as patch:
            for method in methods(broken):
                patch.setattr(broken, method, fail)
            found = copy_context().run(CLIENTS[name])  # a span whose exit fails stays current
    finally:
        uninstrument()
        tracer._output.hold_weakly()
        gc.collect()  # spans that could not end would end with the pipeline of a later test
    assert found == expected
    assert len(found) == CALLS
    assert telemetry.SWALLOWED.value("instrumentation.llm_call", "LookupError") >= before + CALLS
