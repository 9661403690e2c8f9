"""Span functions by kind: types, attributes, parents."""

from prela_stream.model import semconv
from prela_stream.testing import assert_tree, capture_spans
from prela_stream.tracing.tracer import get_tracer

tracer = get_tracer()


def test_each_kind_has_its_type_and_its_operation() -> None:
    with capture_spans() as captured, tracer.agent("planner", agent_id="a1", description="plans"):
        with tracer.llm("draft", model="claude", provider="anthropic", temperature=0.0, max_tokens=10):
            pass
        with tracer.tool("search", arguments={"query": "reefs"}, call_id="c1"):
            pass
        with tracer.retrieval("lookup", query="reefs", data_source="wiki"):
            pass
        with tracer.embedding("embed", model="e5", dimensions=8):
            pass
    assert_tree(
        captured.spans,
        """
        planner [AGENT]
          draft [LLM]
          search [TOOL]
          lookup [RETRIEVAL]
          embed [EMBEDDING]
        """,
    )
    assert {span.name: span.attributes for span in captured.spans} == {
        "planner": {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "planner",
            "gen_ai.agent.id": "a1",
            "gen_ai.agent.description": "plans",
        },
        "draft": {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude",
            "gen_ai.request.temperature": 0.0,
            "gen_ai.request.max_tokens": 10,
        },
        "search": {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.id": "c1",
            "gen_ai.tool.call.arguments": {"query": "reefs"},
        },
        "lookup": {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": "wiki",
            "gen_ai.retrieval.query.text": "reefs",
        },
        "embed": {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": "e5",
            "gen_ai.embeddings.dimension.count": 8,
        },
    }


def test_given_attributes_have_priority() -> None:
    with capture_spans() as captured, tracer.tool("t", attributes={semconv.TOOL_NAME: "other", "x": 1}):
        pass
    found = captured.find("t").attributes
    assert found == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "other", "x": 1}


def test_a_parent_can_be_named() -> None:
    with capture_spans() as captured:
        agent = tracer.agent("a")
        tracer.llm("l", parent=agent).end()
        agent.end()
    assert_tree(captured.spans, "a [AGENT]\n  l [LLM]")
