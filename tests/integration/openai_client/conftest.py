"""A server with recorded answers of the OpenAI API, and the instrumentation switched on for as long as a test asks for it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.testing import CapturedSpans, capture_spans
from tests.support.model_api import ModelApi, Reply, serving_replies

Instrumented = Callable[..., AbstractContextManager[CapturedSpans]]


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelApi]:
    with serving_replies() as api:
        yield api


@pytest.fixture
def api(server: ModelApi) -> ModelApi:
    server.reply = Reply()
    server.replies = iter(())
    server.requests.clear()
    return server


@pytest.fixture
def instrumented() -> Instrumented:
    """A block that traces the client, and gives the spans; it takes `capture_content`."""

    @contextmanager
    def block(*, capture_content: bool = True) -> Iterator[CapturedSpans]:
        with capture_spans() as captured:
            assert auto_instrument(names=["openai"], capture_content=capture_content) == ["openai"]
            try:
                yield captured
            finally:
                uninstrument()

    return block
