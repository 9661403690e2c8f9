"""The libraries whose calls OpenTelemetry's instrumentors trace: which package for which library, tested with what, and the gaps.

The instrumentors are maintained by others (OpenTelemetry, OpenInference, the libraries themselves). Their spans reach this SDK
through the bridge. docs/instrumentation.md is written from this table. Clients with an instrumentor of this SDK are in
`registry.INSTRUMENTORS`.
"""

from typing import Final

import msgspec


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """One library and what traces it."""

    module: str
    """Its instrumentation is activated when the program imports this module."""
    distribution: str
    """Its name on the package index."""
    package: str = ""
    """The distribution of the instrumentor; empty if the library traces itself."""
    path: str = ""
    """The class of the instrumentor, or a function of `otel_libraries` for a library that has to be asked to trace itself."""
    since: str = ""
    """The first version of the library that traces itself."""
    tested: str = ""
    """The versions that `make test-frameworks` runs; empty: not run."""
    gaps: str = ""
    """What its spans lack, as measured."""
    callers: tuple[str, ...] = ()
    """Modules of the library that call a model client and whose calls its spans contain. The client's own instrumentor then
    records nothing, because one call must not give two spans."""
    is_optional: bool = False
    """The library has other uses, so a missing instrumentor is not reported."""


LIBRARIES: Final[dict[str, Library]] = {
    "langchain": Library(
        module="langchain_core",
        distribution="langchain-core",
        tested="langchain-core 1.8 (langchain 1.5, langgraph 1.2), instrumentor 1.3b0",
        gaps="Graph nodes have no spans.",
        package="opentelemetry-instrumentation-genai-langchain",
        path="opentelemetry.instrumentation.genai.langchain:LangChainInstrumentor",
        callers=("langchain_core.language_models",),
    ),
    "llama-index": Library(
        module="llama_index.core",
        distribution="llama-index-core",
        tested="llama-index-core 0.14, instrumentor 4.6",
        gaps="Each step of a workflow is a CUSTOM span. An agent's run is CUSTOM too.",
        package="openinference-instrumentation-llama-index",
        path="openinference.instrumentation.llama_index:LlamaIndexInstrumentor",
        callers=("llama_index.llms", "llama_index.core.base.llms"),
    ),
    "openai-agents": Library(
        module="agents",
        distribution="openai-agents",
        tested="openai-agents 0.24, instrumentor 2.6",
        gaps="Two further spans for the workflow and each turn. The finish reason of a tool call is `stop`.",
        package="openinference-instrumentation-openai-agents",
        path="openinference.instrumentation.openai_agents:OpenAIAgentsInstrumentor",
        callers=("agents.models",),
    ),
    "pydantic-ai": Library(
        module="pydantic_ai",
        distribution="pydantic-ai-slim",
        tested="pydantic-ai-slim 2.68",
        path="prela_stream.instrumentation.otel_libraries:PydanticAI",
        since="1.0",
        callers=("pydantic_ai.models",),
    ),
    "mcp": Library(
        module="mcp",
        distribution="mcp",
        tested="mcp 2.3",
        gaps="Arguments and results of a call are not recorded.",
        since="2.0",
    ),
    "google-adk": Library(
        module="google.adk",
        distribution="google-adk",
        tested="google-adk 2.13",
        gaps="The finish reason of a tool call is `stop`, as in the API.",
        since="1.0",
    ),
    "google-genai": Library(
        module="google.genai",
        distribution="google-genai",
        tested="google-genai 3.6, instrumentor 1.4",
        gaps="A call with automatic function calling makes several requests. Its one span has the tokens of the last one.",
        package="openinference-instrumentation-google-genai",
        path="openinference.instrumentation.google_genai:GoogleGenAIInstrumentor",
    ),
    "litellm": Library(
        module="litellm",
        distribution="litellm",
        tested="litellm 1.110, instrumentor 0.1.51",
        gaps="The model has the provider in front, as in `openai/gpt-5`.",
        package="openinference-instrumentation-litellm",
        path="openinference.instrumentation.litellm:LiteLLMInstrumentor",
        callers=("litellm",),
    ),
    "crewai": Library(
        module="crewai",
        distribution="crewai",
        tested="crewai 1.15, instrumentor 1.1.21",
        gaps="No model calls. Those of the `openai` and `anthropic` clients are recorded by this SDK.",
        package="openinference-instrumentation-crewai",
        path="openinference.instrumentation.crewai:CrewAIInstrumentor",
    ),
    "smolagents": Library(
        module="smolagents",
        distribution="smolagents",
        tested="smolagents 1.26, instrumentor 0.1.43",
        gaps="No cached or reasoning tokens, no finish reasons. Sums over a trace leave out the sum on the agent's span.",
        package="openinference-instrumentation-smolagents",
        path="openinference.instrumentation.smolagents:SmolagentsInstrumentor",
        callers=("smolagents.models",),
    ),
    "strands": Library(
        module="strands",
        distribution="strands-agents",
        tested="strands-agents 1.62",
        gaps="No reasoning tokens. Sums over a trace leave out the sum on the agent's span.",
        since="1.0",
        callers=("strands.models",),
    ),
    "bedrock": Library(
        module="boto3",
        distribution="boto3",
        tested="boto3 1.44, instrumentor 0.1.61",
        gaps="Run with `converse` alone.",
        package="openinference-instrumentation-bedrock",
        path="openinference.instrumentation.bedrock:BedrockInstrumentor",
        is_optional=True,
    ),
    "mistral": Library(
        module="mistralai.client",  # the package above it has no code to wait for
        distribution="mistralai",
        tested="mistralai 3.7, instrumentor 2.2",
        package="openinference-instrumentation-mistralai",
        path="openinference.instrumentation.mistralai:MistralAIInstrumentor",
    ),
    "groq": Library(
        module="groq",
        distribution="groq",
        tested="groq 1.7, instrumentor 0.1.33",
        package="openinference-instrumentation-groq",
        path="openinference.instrumentation.groq:GroqInstrumentor",
    ),
}
"""By the name that `auto_instrument(names=…)` takes, which is also the name of the extra that installs the instrumentor."""
