"""A small agent for each framework: it asks for the weather in Paris, calls one tool, and answers. Each runs in its own venv.

The functions import their framework when they run. So `auto_instrument()` may be called before, as in a real program.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

QUESTION: Final = "Weather in Paris?"
AGENT: Final = "weather_agent"
SCHEMA: Final = {"type": "object", "properties": {"location": {"type": "string"}}}


def weather(location: str) -> str:
    """Weather of a place.

    Args:
        location: Where.
    """
    assert location
    return "rainy, 57 F"


def anthropic(url: str) -> None:
    import anthropic

    client = anthropic.Anthropic(api_key="k", base_url=url)
    tool = {"name": "weather", "description": "Weather.", "input_schema": SCHEMA}
    history: list[Any] = [{"role": "user", "content": QUESTION}]
    asked: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 100, "tools": [tool], "system": "Be brief."}
    reply = client.messages.create(messages=history, **asked)
    called = next(block for block in reply.content if block.type == "tool_use")
    history.append({"role": "assistant", "content": [block.model_dump() for block in reply.content]})
    history.append(
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": called.id, "content": weather("Paris")}]}
    )
    for _ in client.messages.create(messages=history, stream=True, **asked):
        pass


def openai(url: str) -> None:
    import openai

    client = openai.OpenAI(api_key="k", base_url=f"{url}/v1")
    function = {"name": "weather", "description": "Weather.", "parameters": SCHEMA}
    history: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    asked: Any = {"model": "gpt-5", "tools": [{"type": "function", "function": function}]}
    reply = client.chat.completions.create(messages=history, **asked).choices[0].message
    history.append(reply.model_dump(exclude_none=True))
    history.append({"role": "tool", "tool_call_id": "call_1", "content": weather("Paris")})
    for _ in client.chat.completions.create(
        messages=history, stream=True, stream_options={"include_usage": True}, **asked
    ):
        pass
    client.responses.create(model="gpt-5", input=QUESTION)


def langchain(url: str) -> None:
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="gpt-5", base_url=f"{url}/v1", api_key="k", use_responses_api=False)
    agent = create_agent(model, [tool(weather)], system_prompt="Be brief.", name=AGENT)
    agent.invoke({"messages": [("user", QUESTION)]}, config={"configurable": {"thread_id": "t1"}})


def openai_agents(url: str) -> None:
    import agents

    os.environ.update(OPENAI_API_KEY="k", OPENAI_BASE_URL=f"{url}/v1")
    agent = agents.Agent(name=AGENT, instructions="Be brief.", tools=[agents.function_tool(weather)], model="gpt-5")
    asyncio.run(agents.Runner.run(agent, QUESTION))


def pydantic_ai(url: str) -> None:
    from pydantic_ai import Agent

    os.environ.update(OPENAI_API_KEY="k", OPENAI_BASE_URL=f"{url}/v1")
    Agent("openai-chat:gpt-5", instructions="Be brief.", name=AGENT, tools=[weather]).run_sync(QUESTION)


def google_genai(url: str) -> None:
    from google import genai

    client = genai.Client(api_key="k", http_options={"base_url": url})
    client.models.generate_content(model="gemini-3-pro", contents=QUESTION, config={"system_instruction": "Be brief."})
    for _ in client.models.generate_content_stream(model="gemini-3-pro", contents=QUESTION):
        pass


def google_adk(url: str) -> None:
    from google.adk.agents import LlmAgent
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    os.environ.update(GOOGLE_API_KEY="k", GOOGLE_GEMINI_BASE_URL=url)
    agent = LlmAgent(name=AGENT, model="gemini-3-pro", instruction="Be brief.", tools=[weather])

    async def run() -> None:
        runner = InMemoryRunner(agent=agent, app_name="app")
        session = await runner.session_service.create_session(app_name="app", user_id="u")
        message = types.Content(role="user", parts=[types.Part(text=QUESTION)])
        async for _ in runner.run_async(user_id="u", session_id=session.id, new_message=message):
            pass

    asyncio.run(run())


def llama_index(url: str) -> None:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.llms.openai import OpenAI

    model = OpenAI(model="gpt-4o", api_base=f"{url}/v1", api_key="k")
    agent = FunctionAgent(name=AGENT, tools=[weather], llm=model, system_prompt="Be brief.", streaming=False)

    async def run() -> None:
        await agent.run(QUESTION)

    asyncio.run(run())


def litellm(url: str) -> None:
    import litellm

    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": "openai/gpt-5", "messages": messages, "api_base": f"{url}/v1", "api_key": "k"}
    litellm.completion(**asked)
    asyncio.run(litellm.acompletion(**asked))


def crewai(url: str) -> None:
    os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OPENAI_API_KEY="k")
    from crewai import LLM, Agent, Crew, Task

    model = LLM(model="openai/gpt-4o", base_url=f"{url}/v1", api_key="k")
    agent = Agent(role="Forecaster", goal="Find the weather", backstory="You know.", llm=model)
    task = Task(description=QUESTION, expected_output="One line", agent=agent)
    Crew(agents=[agent], tasks=[task], verbose=False).kickoff()


def smolagents(url: str) -> None:
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool

    model = OpenAIServerModel(model_id="gpt-5", api_base=f"{url}/v1", api_key="k")
    ToolCallingAgent(tools=[tool(weather)], model=model, max_steps=3, verbosity_level=0).run(QUESTION)


def strands(url: str) -> None:
    from strands import Agent, tool
    from strands.models.openai import OpenAIModel

    model = OpenAIModel(client_args={"base_url": f"{url}/v1", "api_key": "k"}, model_id="gpt-5")
    Agent(model=model, tools=[tool(weather)], name=AGENT, callback_handler=None)(QUESTION)


_MCP_SERVER: Final = '''
try:
    from mcp.server.mcpserver import MCPServer
except ImportError:
    from mcp.server.fastmcp import FastMCP as MCPServer
server = MCPServer("weather")
@server.tool()
def weather(location: str) -> str:
    """Weather of a place"""
    return "rainy, 57 F"
server.run(transport="stdio")
'''


def mcp(_: str) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    with tempfile.TemporaryDirectory() as folder:
        server = Path(folder) / "server.py"
        server.write_text(_MCP_SERVER)
        subprocess.run([sys.executable, "-c", "import mcp.server"], check=True, timeout=120)  # compile it once

        async def run() -> None:
            parameters = StdioServerParameters(command=sys.executable, args=[str(server)], env=dict(os.environ))
            async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
                await session.initialize()
                await session.call_tool("weather", {"location": "Paris"})

        asyncio.run(run())


def groq(url: str) -> None:
    import groq

    client = groq.Groq(api_key="k", base_url=url)
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    asked: Any = {"model": "openai/gpt-oss-20b", "messages": messages}
    client.chat.completions.create(**asked)
    function = {"name": "weather", "description": "Weather.", "parameters": SCHEMA}
    client.chat.completions.create(tools=[{"type": "function", "function": function}], **asked)


def mistral(url: str) -> None:
    try:
        from mistralai import Mistral
    except ImportError:
        from mistralai.client import Mistral

    client = Mistral(api_key="k", server_url=url)
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    asked: Any = {"model": "mistral-large-latest", "messages": messages}
    client.chat.complete(**asked)
    function = {"name": "weather", "description": "Weather.", "parameters": SCHEMA}
    client.chat.complete(tools=[{"type": "function", "function": function}], **asked)


def bedrock(url: str) -> None:
    import boto3

    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "k", "region_name": "us-east-1"}
    client = boto3.client("bedrock-runtime", endpoint_url=url, **keys)
    asked: Any = {
        "modelId": "amazon.nova-pro-v1:0",
        "system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
        "inferenceConfig": {"maxTokens": 100},
    }
    client.converse(**asked)
    specification = {"name": "weather", "description": "Weather.", "inputSchema": {"json": SCHEMA}}
    client.converse(toolConfig={"tools": [{"toolSpec": specification}]}, **asked)


PROGRAMS: Final[dict[str, Callable[[str], None]]] = {
    "anthropic": anthropic,
    "openai": openai,
    "langchain": langchain,
    "openai-agents": openai_agents,
    "pydantic-ai": pydantic_ai,
    "mcp": mcp,
    "google-genai": google_genai,
    "google-adk": google_adk,
    "llama-index": llama_index,
    "litellm": litellm,
    "crewai": crewai,
    "smolagents": smolagents,
    "strands": strands,
    "groq": groq,
    "mistral": mistral,
    "bedrock": bedrock,
}
