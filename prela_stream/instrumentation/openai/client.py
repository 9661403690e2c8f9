"""The instrumentor of the `openai` client, for OpenAI, Azure, Bedrock and servers with the same API."""

from typing import Any, Final

from prela_stream.instrumentation.api_client import ApiClientInstrumentor
from prela_stream.instrumentation.openai import runners
from prela_stream.instrumentation.openai.chat import ChatCompletion, TextCompletion
from prela_stream.instrumentation.openai.embeddings import CreateEmbeddings
from prela_stream.instrumentation.openai.images import GenerateImage
from prela_stream.instrumentation.openai.responses import CompactResponse, CountTokens, CreateDecision, CreateResponse
from prela_stream.instrumentation.provider import Operation
from prela_stream.model import semconv

REQUEST_ID: Final = "openai.request.id"
_OPERATIONS: Final[dict[str, Operation]] = {
    "/chat/completions": ChatCompletion(),
    "/responses": CreateResponse(),
    "/embeddings": CreateEmbeddings(),
    "/completions": TextCompletion(),
    "/responses/compact": CompactResponse(),
    "/responses/input_tokens": CountTokens(),
    "/decisions": CreateDecision(),
    "/images/generations": GenerateImage(),
    "/images/edits": GenerateImage(),
}
"""By the end of the path; the first one that matches counts. A request to any other path is not traced."""
_PLATFORMS: Final = {"azure": "azure.ai.openai", "bedrock": "aws.bedrock"}
"""Module of the library's client class."""
_NAMED: Final = {"bedrock": "aws.bedrock", "vertex": "gcp.vertex_ai"}
"""What the client object reports: the name of its `provider=`, which `BedrockOpenAI` sets too."""
_HOSTS: Final = {
    "openai.azure.com": "azure.ai.openai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
"""End of the host name, for other providers that serve the same API."""


class OpenAIProvider:
    """The OpenAI API, on all its platforms."""

    module = "openai"
    request_id = ("x-request-id", REQUEST_ID)

    def operation(self, method: str, path: str) -> Operation | None:
        """As `Provider.operation`."""
        if method.lower() != "post":
            return None
        return next((found for end, found in _OPERATIONS.items() if path.endswith(end)), None)

    def client_attributes(self, client: Any) -> dict[str, Any]:
        """As `Provider.client_attributes`."""
        return {semconv.PROVIDER_NAME: _provider_name(client)}


class OpenAIInstrumentor(ApiClientInstrumentor):
    """Makes one LLM span of each request for chat completions, responses, completions, decisions or images.

    A request for embeddings gives a span of type EMBEDDING, and one that counts tokens a span of type CUSTOM. A tool runner
    gives a span of type AGENT, with its model calls and a TOOL for each tool below it.
    """

    def __init__(self) -> None:
        super().__init__(
            "openai",
            OpenAIProvider(),
            oldest="1.40",
            complete_from="1.40",
            runners=runners.MODULES,
            runners_from="3.54",
        )


def _provider_name(client: Any) -> str:
    reported = getattr(getattr(client, "_provider_runtime", None), "name", None)  # from 3.54
    if isinstance(reported, str) and reported:
        return _NAMED.get(reported, reported)
    modules = {part for base in type(client).__mro__ for part in base.__module__.split(".") if _is_own(base)}
    host = client.base_url.host
    platform = next((provider for module, provider in _PLATFORMS.items() if module in modules), None)
    return platform or next((provider for end, provider in _HOSTS.items() if host.endswith(end)), "openai")


def _is_own(base: type) -> bool:
    return base.__module__.startswith(f"{OpenAIProvider.module}.")
