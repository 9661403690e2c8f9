"""A model server, clients, and the instrumentation switched on for as long as a test asks for it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import anthropic
import pytest

from prela_stream.demo.model_server import serving
from prela_stream.instrumentation.registry import auto_instrument, uninstrument
from prela_stream.testing import CapturedSpans, capture_spans

Instrumented = Callable[..., AbstractContextManager[CapturedSpans]]


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELA_STRICT", "1")


@pytest.fixture(scope="session")
def model_server_url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def client(model_server_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=model_server_url, api_key="demo") as client:
        yield client


@pytest.fixture
async def async_client(model_server_url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=model_server_url, api_key="demo") as client:
        yield client


@pytest.fixture
def instrumented() -> Instrumented:
    """A block that traces the client, and gives the spans; it takes `capture_content`."""

    @contextmanager
    def block(*, capture_content: bool = True) -> Iterator[CapturedSpans]:
        with capture_spans() as captured:
            assert auto_instrument(names=["anthropic"], capture_content=capture_content) == ["anthropic"]
            try:
                yield captured
            finally:
                uninstrument()

    return block
