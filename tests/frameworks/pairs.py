"""The pairs of a library and an instrumentor that are run, and what each is known to lack."""

from typing import Final

import msgspec

from prela_stream.instrumentation.libraries import LIBRARIES


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One pair, run in a venv with its packages."""

    library: str
    instrumentor: str
    path: str
    """As the argument of `run_pair`."""
    packages: tuple[str, ...]
    distribution: str
    lacks: frozenset[str] = frozenset()
    """What its spans do not have, as `test_pairs.lacking` names it."""
    has_tool: bool = True
    """Its program calls a tool that the instrumentor sees."""

    @property
    def name(self) -> str:
        """Its name in the list of tests."""
        return f"{self.library}-{self.instrumentor}"


_OPENINFERENCE: Final = "OpenInference"
_GENAI: Final = "OpenTelemetry genai"
_OPENLLMETRY: Final = "OpenLLMetry"
_NATIVE: Final = "native"
_AUTO: Final = "auto"

_CLIENTS: Final = ("openai==3.57.0", "anthropic==2.14.0")
_LANGCHAIN: Final = ("langchain==1.5.2", "langgraph==1.2.24", "langchain-openai")
_AGENTS: Final = ("openai-agents==0.24.0",)
_LLAMA: Final = ("llama-index-core==0.14.25", "llama-index-llms-openai")
_ADK: Final = ("google-adk==2.13.0",)
_GENAI_CLIENT: Final = ("google-genai==3.6.1",)
_STRANDS: Final = ("strands-agents[openai]==1.62.0",)
_PYDANTIC: Final = ("pydantic-ai-slim[openai]==2.68.0",)
_LITELLM: Final = ("litellm==1.110.2",)
_CREWAI: Final = ("crewai==1.15.30",)
_SMOLAGENTS: Final = ("smolagents[openai]==1.26.0",)
_BEDROCK: Final = ("boto3==1.44.8",)
_MISTRAL: Final = ("mistralai==3.7.0",)
_GROQ: Final = ("groq==1.7.0",)
_MCP: Final = ("mcp==2.3.0",)

_DISTRIBUTIONS: Final = {name: library.distribution for name, library in LIBRARIES.items()}


def _pair(
    library: str,
    instrumentor: str,
    path: str,
    packages: tuple[str, ...],
    package: str = "",
    *,
    lacks: str = "",
    has_tool: bool = True,
) -> Pair:
    return Pair(
        library=library,
        instrumentor=instrumentor,
        path=path,
        packages=(*packages, package) if package else packages,
        distribution=_DISTRIBUTIONS.get(library, library),
        lacks=frozenset(lacks.split(", ")) if lacks else frozenset(),
        has_tool=has_tool,
    )


def _chosen(library: str, packages: tuple[str, ...], *, lacks: str = "", has_tool: bool = True) -> Pair:
    """What `init()` does for this library."""
    entry = LIBRARIES.get(library)
    package = entry.package if entry is not None else ""
    return _pair(library, _AUTO, "auto", packages, package, lacks=lacks, has_tool=has_tool)


PAIRS: Final[tuple[Pair, ...]] = (
    _chosen("anthropic", _CLIENTS, has_tool=False),
    _pair("anthropic", _NATIVE, "native", _CLIENTS, has_tool=False, lacks="answers"),
    _pair(
        "anthropic", _OPENINFERENCE, "openinference.instrumentation.anthropic:AnthropicInstrumentor", _CLIENTS,
        "openinference-instrumentation-anthropic", has_tool=False,
    ),
    _pair(
        "anthropic", _GENAI, "opentelemetry.instrumentation.genai.anthropic:AnthropicInstrumentor", _CLIENTS,
        "opentelemetry-instrumentation-genai-anthropic==1.3b0", has_tool=False,
    ),
    _pair(
        "anthropic", _OPENLLMETRY, "opentelemetry.instrumentation.anthropic:AnthropicInstrumentor", _CLIENTS,
        "opentelemetry-instrumentation-anthropic==0.62.4", has_tool=False, lacks="output tokens"),
    _chosen("openai", _CLIENTS, has_tool=False),
    _pair(
        "openai", _OPENINFERENCE, "openinference.instrumentation.openai:OpenAIInstrumentor", _CLIENTS,
        "openinference-instrumentation-openai", has_tool=False,
    ),
    _pair(
        "openai", _GENAI, "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor", _CLIENTS,
        "opentelemetry-instrumentation-genai-openai==1.3b0", has_tool=False,
    ),
    _pair(
        "openai", _OPENLLMETRY, "opentelemetry.instrumentation.openai:OpenAIInstrumentor", _CLIENTS,
        "opentelemetry-instrumentation-openai==0.62.4", has_tool=False, lacks="reasoning tokens"),
    _chosen("langchain", _LANGCHAIN),
    _pair(
        "langchain", _OPENINFERENCE, "openinference.instrumentation.langchain:LangChainInstrumentor", _LANGCHAIN,
        "openinference-instrumentation-langchain==0.1.80",
    ),
    _pair(
        "langchain", _GENAI, "opentelemetry.instrumentation.genai.langchain:LangChainInstrumentor", _LANGCHAIN,
        "opentelemetry-instrumentation-genai-langchain==1.3b0",
    ),
    _pair(
        "langchain", _OPENLLMETRY, "opentelemetry.instrumentation.langchain:LangchainInstrumentor", _LANGCHAIN,
        "opentelemetry-instrumentation-langchain==0.62.4", lacks="reasoning tokens"),
    _chosen("openai-agents", _AGENTS, lacks=""),
    _pair(
        "openai-agents", _OPENINFERENCE, "openinference.instrumentation.openai_agents:OpenAIAgentsInstrumentor", _AGENTS,
        "openinference-instrumentation-openai-agents==2.6.0", lacks=""),
    _pair(
        "openai-agents", _GENAI, "opentelemetry.instrumentation.genai.openai_agents:OpenAIAgentsInstrumentor", _AGENTS,
        "opentelemetry-instrumentation-genai-openai-agents==1.3b0", lacks="calls"),
    _pair(
        "openai-agents", _OPENLLMETRY, "opentelemetry.instrumentation.openai_agents:OpenAIAgentsInstrumentor", _AGENTS,
        "opentelemetry-instrumentation-openai-agents==0.62.4", lacks="model"),
    _chosen("pydantic-ai", _PYDANTIC),
    _chosen("mcp", _MCP, lacks="tool arguments, tool result"),
    _pair("mcp", _NATIVE, "native", _MCP, lacks="tool arguments, tool result"),
    _pair(
        "mcp", _OPENINFERENCE, "openinference.instrumentation.mcp:MCPInstrumentor", _MCP,
        "openinference-instrumentation-mcp==2.0.13", lacks="tool arguments, tool result"),
    _chosen("google-adk", _ADK),
    _pair("google-adk", _NATIVE, "native", _ADK),
    _chosen("google-genai", _GENAI_CLIENT, has_tool=False),
    _pair(
        "google-genai", _OPENINFERENCE, "openinference.instrumentation.google_genai:GoogleGenAIInstrumentor", _GENAI_CLIENT,
        "openinference-instrumentation-google-genai==1.4.14", has_tool=False,
    ),
    _chosen("strands", _STRANDS, lacks="reasoning tokens"),
    _pair("strands", _NATIVE, "native", _STRANDS, lacks="reasoning tokens"),
    _chosen("llama-index", _LLAMA, lacks=""),
    _pair(
        "llama-index", _OPENINFERENCE, "openinference.instrumentation.llama_index:LlamaIndexInstrumentor", _LLAMA,
        "openinference-instrumentation-llama-index==4.6.1", lacks=""),
    _pair(
        "llama-index", _GENAI, "opentelemetry.instrumentation.genai.llama_index:LlamaIndexInstrumentor", _LLAMA,
        "opentelemetry-instrumentation-genai-llama-index==1.3b0", lacks="calls"),
    _pair(
        "llama-index", _OPENLLMETRY, "opentelemetry.instrumentation.llamaindex:LlamaIndexInstrumentor", _LLAMA,
        "opentelemetry-instrumentation-llamaindex==0.62.4", lacks="calls, tool"),
    _chosen("litellm", _LITELLM, has_tool=False),
    _pair(
        "litellm", _OPENINFERENCE, "openinference.instrumentation.litellm:LiteLLMInstrumentor", _LITELLM,
        "openinference-instrumentation-litellm==0.1.51", has_tool=False,
    ),
    _pair(
        "litellm", _OPENLLMETRY, "opentelemetry.instrumentation.litellm:LiteLLMInstrumentor", _LITELLM,
        "opentelemetry-instrumentation-litellm==0.62.4", has_tool=False, lacks="reasoning tokens"),
    _chosen("crewai", _CREWAI, has_tool=False),
    _pair(
        "crewai", _OPENINFERENCE, "openinference.instrumentation.crewai:CrewAIInstrumentor", _CREWAI,
        "openinference-instrumentation-crewai==1.1.21", has_tool=False, lacks="calls"),
    _pair(
        "crewai", _OPENLLMETRY, "opentelemetry.instrumentation.crewai:CrewAIInstrumentor", _CREWAI,
        "opentelemetry-instrumentation-crewai==0.62.4", has_tool=False, lacks="calls"),
    _chosen("bedrock", _BEDROCK, has_tool=False),
    _pair(
        "bedrock", _OPENINFERENCE, "openinference.instrumentation.bedrock:BedrockInstrumentor", _BEDROCK,
        "openinference-instrumentation-bedrock==0.1.61", has_tool=False,
    ),
    _chosen("mistral", _MISTRAL, has_tool=False),
    _pair(
        "mistral", _OPENINFERENCE, "openinference.instrumentation.mistralai:MistralAIInstrumentor", _MISTRAL,
        "openinference-instrumentation-mistralai==2.2.2", has_tool=False,
    ),
    _chosen("groq", _GROQ, has_tool=False),
    _pair(
        "groq", _OPENINFERENCE, "openinference.instrumentation.groq:GroqInstrumentor", _GROQ,
        "openinference-instrumentation-groq==0.1.33", has_tool=False,
    ),
    _chosen("smolagents", _SMOLAGENTS, lacks="cached tokens, finish reasons, reasoning tokens"),
    _pair(
        "smolagents", _OPENINFERENCE, "openinference.instrumentation.smolagents:SmolagentsInstrumentor", _SMOLAGENTS,
        "openinference-instrumentation-smolagents==0.1.43",
        lacks="cached tokens, finish reasons, reasoning tokens"),
)  # fmt: skip
