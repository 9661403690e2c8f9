"""The instrumentor of the `anthropic` client. The client's tracing with OpenTelemetry is left as it is."""

from typing import Any, Final

from prela_stream.instrumentation.anthropic import runner
from prela_stream.instrumentation.anthropic.batches import PATH, BatchResults, CreateBatch, batch_id_of
from prela_stream.instrumentation.anthropic.messages import CountTokens, CreateMessage
from prela_stream.instrumentation.api_client import ApiClientInstrumentor
from prela_stream.instrumentation.provider import Operation
from prela_stream.model import semconv

REQUEST_ID: Final = "anthropic.request.id"
_OPERATIONS: Final[dict[str, Operation]] = {
    "/v1/messages": CreateMessage(),
    "/v1/messages/count_tokens": CountTokens(),
    PATH: CreateBatch(),
}
"""By the end of the path. A request to any other path is not traced."""
_PLATFORMS: Final = {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai", "foundry": "azure.ai.inference"}
"""Package of the library's client class, for clients that do not report a platform: Foundry, and all of them before 2.0."""


class AnthropicProvider:
    """The Anthropic API, on all its platforms."""

    module = "anthropic"
    request_id = ("request-id", REQUEST_ID)

    def operation(self, method: str, path: str) -> Operation | None:
        """As `Provider.operation`."""
        if method.lower() == "get" and (batch_id := batch_id_of(path)) is not None:
            return BatchResults(batch_id)
        if method.lower() != "post":
            return None
        return next((found for end, found in _OPERATIONS.items() if path.endswith(end)), None)

    def client_attributes(self, client: Any) -> dict[str, Any]:
        """As `Provider.client_attributes`."""
        return {semconv.PROVIDER_NAME: _provider_name(client)}


class AnthropicInstrumentor(ApiClientInstrumentor):
    """Makes one LLM span `chat {model}` of each request to the Messages API.

    A request to count tokens generates nothing, so its span `count_tokens {model}` has the type CUSTOM. So have `create_batch`
    and `batch_results`, the spans of a batch that is created and of one whose results are read. A tool runner gives a
    span of type AGENT, with its model calls and a TOOL for each tool below it.
    """

    def __init__(self) -> None:
        super().__init__(
            "anthropic",
            AnthropicProvider(),
            oldest="0.40",
            complete_from="0.108",
            runners={runner.MODULE: runner.STEPS},
            runners_from="2.12",
        )


def _provider_name(client: Any) -> str:
    reported = getattr(client, "_gen_ai_provider_name", None)
    if isinstance(reported, str) and reported != "anthropic":
        return reported
    packages = {
        package
        for base in type(client).__mro__
        if base.__module__.startswith(f"{AnthropicProvider.module}.")
        for package in base.__module__.split(".")
    }
    return next((provider for package, provider in _PLATFORMS.items() if package in packages), "anthropic")
