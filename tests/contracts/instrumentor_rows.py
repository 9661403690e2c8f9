"""One row for each registered instrumentor: how the suite uses its library, and recorded answers of its API."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar

from tests.contracts.instrumentor_contract import ANSWER, MODEL, PROMPT, TOOL, Row
from tests.support import openai_api
from tests.support.model_api import sse


class Anthropic:
    """The `anthropic` client."""

    request: ClassVar[dict[str, Any]] = {
        "model": MODEL,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": PROMPT}],
        "tools": [{"name": "contract", "description": TOOL, "input_schema": {"type": "object"}}],
    }

    def create(self, url: str, *, retries: int = 0) -> object:
        """As `Library.create`."""
        from anthropic import Anthropic

        with Anthropic(base_url=url, api_key="k", max_retries=retries) as client:
            return client.messages.create(**self.request)

    async def create_async(self, url: str) -> object:
        """As `Library.create_async`."""
        from anthropic import AsyncAnthropic

        async with AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
            return await client.messages.create(**self.request)

    @contextmanager
    def stream(self, url: str) -> Iterator[Iterator[object]]:
        """As `Library.stream`."""
        from anthropic import Anthropic

        with (
            Anthropic(base_url=url, api_key="k", max_retries=0) as client,
            client.messages.create(**self.request, stream=True) as stream,
        ):
            yield iter(stream)

    @asynccontextmanager
    async def stream_async(self, url: str) -> AsyncIterator[AsyncIterator[object]]:
        """As `Library.stream_async`."""
        from anthropic import AsyncAnthropic

        async with (
            AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client,
            await client.messages.create(**self.request, stream=True) as stream,
        ):
            yield aiter(stream)

    def patched(self) -> list[tuple[type, str]]:
        """As `Library.patched`."""
        from anthropic._base_client import AsyncAPIClient, SyncAPIClient

        return [(owner, name) for owner in (SyncAPIClient, AsyncAPIClient) for name in ("request", "_attempt_request")]


def _anthropic() -> Row:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 25}
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None,
        "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn", "usage": usage,
    }  # fmt: skip
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    first = sse(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ANSWER}},
    )
    rest = sse(
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}},
        {"type": "message_stop"},
    )
    invalid = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too small"}}
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return Row(
        library=Anthropic(),
        provider="anthropic",
        whole=json.dumps(message).encode(),
        stream=[first, rest],
        failure=(400, json.dumps(invalid).encode(), "invalid_request_error"),
        overloaded=(529, json.dumps(overloaded).encode()),
        input_tokens=15,
        output_tokens=25,
        finish_reason="stop",
    )


class OpenAI:
    """The `openai` client."""

    request: ClassVar[dict[str, Any]] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "tools": [{"type": "function", "function": {"name": "contract", "description": TOOL, "parameters": {}}}],
    }

    def create(self, url: str, *, retries: int = 0) -> object:
        """As `Library.create`."""
        from openai import OpenAI

        with OpenAI(base_url=url, api_key="k", max_retries=retries) as client:
            return client.chat.completions.create(**self.request)

    async def create_async(self, url: str) -> object:
        """As `Library.create_async`."""
        from openai import AsyncOpenAI

        async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
            return await client.chat.completions.create(**self.request)

    @contextmanager
    def stream(self, url: str) -> Iterator[Iterator[object]]:
        """As `Library.stream`."""
        from openai import OpenAI

        with (
            OpenAI(base_url=url, api_key="k", max_retries=0) as client,
            client.chat.completions.create(**self.request, stream=True) as stream,
        ):
            yield iter(stream)

    @asynccontextmanager
    async def stream_async(self, url: str) -> AsyncIterator[AsyncIterator[object]]:
        """As `Library.stream_async`."""
        from openai import AsyncOpenAI

        async with (
            AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client,
            await client.chat.completions.create(**self.request, stream=True) as stream,
        ):
            yield aiter(stream)

    def patched(self) -> list[tuple[type, str]]:
        """As `Library.patched`."""
        from openai._base_client import AsyncAPIClient, BaseClient, SyncAPIClient

        both = [(owner, name) for owner in (SyncAPIClient, AsyncAPIClient) for name in ("request", "_process_response")]
        return [*both, (BaseClient, "_build_request"), (BaseClient, "_should_retry")]


def _openai() -> Row:
    invalid = {"error": {"type": "invalid_request_error", "message": "max_tokens: too small", "code": "bad"}}
    overloaded = {"error": {"type": "server_error", "message": "Overloaded"}}
    usage = openai_api.CHAT_USAGE
    stream = openai_api.chat_stream(ANSWER, model=MODEL)
    return Row(
        library=OpenAI(),
        provider="openai",
        whole=json.dumps(openai_api.chat_answer(ANSWER, model=MODEL)).encode(),
        stream=[b"".join(stream[:2]), b"".join(stream[2:])],
        failure=(400, json.dumps(invalid).encode(), "invalid_request_error"),
        overloaded=(503, json.dumps(overloaded).encode()),
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        finish_reason="stop",
    )


ROWS: dict[str, Row] = {"anthropic": _anthropic(), "openai": _openai()}
"""By name in the registry; a test fails for a registered instrumentor that has no row."""
