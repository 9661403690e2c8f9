"""Files of other tools with what real ones have: several services and tracers, base64 ids, deep chains, shared ids, lost parents.

Each function returns one document for `prela-stream import`. Content and shape were written for these tests.
"""

import base64
import json
from collections.abc import Callable
from typing import Any, Final

START: Final = 1_760_000_000_000_000_000
MS: Final = 1_000_000
QUESTION: Final = "Which harbour had the **highest tide** in March?"


def _id(trace: int, span: int = 0) -> str:
    return f"{trace:08x}{span:08x}"


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}


def otlp_rag() -> Any:
    """A retrieval agent below OpenInference: three requests, ids in base64, kinds and states as names, flattened messages."""
    trace = base64.b64encode(bytes.fromhex(_id(0xA1) * 2)).decode()
    messages = {
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": "Answer from the documents.",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": QUESTION,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "Saint-Malo, with 12.9 m.",
        "llm.token_count.prompt": 420,
        "llm.token_count.completion": 12,
        "llm.model_name": "open-model-7b",
    }
    documents = {
        f"retrieval.documents.{at}.document.{name}": value
        for at in range(4)
        for name, value in (("content", f"Tide table {at}: " + "12.1 " * 60), ("score", 0.9 - at / 10))
    }
    spans: list[tuple[int, int | None, str, str, dict[str, Any]]] = [
        (1, None, "TideAgent", "CHAIN", {"input.value": QUESTION, "output.value": "Saint-Malo"}),
        (2, 1, "RunnableSequence", "CHAIN", {}),
        (3, 2, "Retriever", "RETRIEVER", {"input.value": QUESTION, **documents}),
        (4, 3, "Embeddings", "EMBEDDING", {"embedding.model_name": "embed-small"}),
        (5, 2, "PromptTemplate", "CHAIN", {"llm.prompt_template.template": "{question} {context}"}),
        (6, 2, "ChatModel", "LLM", {**messages, "metadata": json.dumps({"ls_provider": "local"})}),
        (7, 2, "OutputParser", "CHAIN", {"output.mime_type": "text/plain"}),
    ]
    made = [
        {
            "traceId": trace,
            "spanId": base64.b64encode(bytes.fromhex(_id(0xA1, index))).decode(),
            "parentSpanId": base64.b64encode(bytes.fromhex(_id(0xA1, parent))).decode() if parent else "",
            "name": name,
            "kind": "SPAN_KIND_INTERNAL",
            "startTimeUnixNano": str(START + index * 20 * MS),
            "endTimeUnixNano": str(START + (900 - index * 20) * MS),
            "status": {"code": "STATUS_CODE_OK"},
            "attributes": [
                {"key": key, "value": _value(value)}
                for key, value in {"openinference.span.kind": kind, "session.id": "harbour-1", **own}.items()
            ],
        }
        for index, parent, name, kind, own in spans
    ]
    resource = {"attributes": [{"key": "service.name", "value": _value("tide-tables")}]}
    return [
        {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "rag"}, "spans": part}]}]}
        for part in (made[4:], made[2:4], made[:2])
    ]


def jaeger_services() -> Any:
    """Agents in three services, each model call traced by two tracers, a failed request, and a child that outlives its parent."""
    trace = _id(0xB2) * 2
    spans: list[dict[str, Any]] = []

    def add(index: int, parent: int | None, name: str, process: str, at: int, ms: int, **tags: Any) -> None:
        references = [{"refType": "CHILD_OF", "traceID": trace, "spanID": _id(0xB2, parent)}] if parent else []
        spans.append(
            {
                "traceID": trace,
                "spanID": _id(0xB2, index),
                "operationName": name,
                "references": references,
                "startTime": START // 1000 + at * 1000,
                "duration": ms * 1000,
                "processID": process,
                "tags": [{"key": key, "type": "string", "value": value} for key, value in tags.items()],
                "logs": [],
            }
        )

    add(1, None, "POST /ask", "p1", 0, 1_000, **{"http.method": "POST", "http.status_code": "200"})
    add(
        2,
        1,
        "invoke_agent planner",
        "p2",
        5,
        900,
        **{"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"},
    )
    for turn in range(6):
        call = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "model-x",
            "gen_ai.usage.input_tokens": str(100 + turn),
            "gen_ai.usage.output_tokens": "20",
        }
        add(10 + turn * 10, 2, "chat model-x", "p2", 10 + turn * 140, 90, **call)
        add(11 + turn * 10, 10 + turn * 10, "openai.chat", "p2", 12 + turn * 140, 80, **call)
        add(12 + turn * 10, 11 + turn * 10, "POST", "p2", 14 + turn * 140, 70, **{"http.url": "http://models.test/v1"})
        add(13 + turn * 10, 2, "execute_tool tides", "p2", 101 + turn * 140, 40, **{"gen_ai.tool.name": "tides"})
        add(14 + turn * 10, 13 + turn * 10, "SELECT tides", "p3", 102 + turn * 140, 20, **{"db.system": "postgresql"})
    failed = {"http.status_code": "404", "error": "true", "otel.status_code": "ERROR"}
    add(90, 63, "GET /tides/1899", "p3", 810, 15, **failed)
    add(91, 63, "background refresh", "p3", 830, 600)
    processes = {
        f"p{at}": {"serviceName": name, "tags": []} for at, name in enumerate(("gateway", "planner", "tides"), 1)
    }
    return {"data": [{"traceID": trace, "spans": spans[::-1], "processes": processes}]}


def zipkin_deep() -> Any:
    """A chain of 24 levels in which client and server share ids, with spans whose parents are not there."""
    trace = _id(0xC3) * 2
    found = []
    for level in range(1, 25):
        one = {
            "traceId": trace,
            "id": _id(0xC3, level),
            "name": f"hop {level}",
            "timestamp": START // 1000 + level * 900,
            "duration": (60 - level) * 2_000,
            "tags": {"http.path": f"/hop/{level}"} | ({"error": "timeout"} if level == 24 else {}),
        }
        if level > 1:
            one["parentId"] = _id(0xC3, level - 1)
        found.append({**one, "kind": "CLIENT", "localEndpoint": {"serviceName": f"hop-{level % 5}"}})
        if level % 4 == 0:
            found.append(
                {**one, "kind": "SERVER", "shared": True, "localEndpoint": {"serviceName": f"hop-{level % 5 + 1}"}}
            )
    lost = {"traceId": trace, "timestamp": START // 1000 + 50_000, "duration": 1_000, "name": "late message"}
    lost["localEndpoint"] = {"serviceName": "queue"}
    found += [{**lost, "id": _id(0xC3, 100 + at), "parentId": _id(0xC3, 200 + at // 2)} for at in range(3)]
    return found


def langfuse_graph() -> Any:
    """An export of a graph of nodes: messages and results as JSON inside strings, usage as a map, and a node without an end."""
    trace = _id(0xD4) * 2
    question = [{"role": "user", "content": QUESTION}]
    call = {"id": "call-1", "type": "function", "function": {"name": "tides", "arguments": '{"month": "March"}'}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    usage = {
        "usageDetails": {"input": 61, "output": 14, "total": 75},
        "costDetails": {"total": 0.00021},
        "model": "model-y",
    }
    rows: list[tuple[int, int | None, str, str, dict[str, Any]]] = [
        (1, None, "TideGraph", "SPAN", {"input": json.dumps({"messages": question})}),
        (2, 1, "agent", "SPAN", {}),
        (3, 2, "ChatModel", "GENERATION", {"input": json.dumps(question), "output": json.dumps(answer), **usage}),
        (4, 1, "tools", "SPAN", {}),
        (5, 4, "tides", "TOOL", {"input": '{"month": "March"}', "output": "12.9 m"}),
        (6, 1, "agent", "SPAN", {"level": "ERROR", "statusMessage": "the model did not answer"}),
        (7, 6, "ChatModel", "GENERATION", {"input": json.dumps(question), **usage, "endTime": None}),
    ]
    observations = [
        {
            "id": _id(0xD4, index),
            "traceId": trace,
            "type": kind,
            "name": name,
            "parentObservationId": _id(0xD4, parent) if parent else None,
            "startTime": f"2025-10-09T08:53:2{index}.000Z",
            "endTime": f"2025-10-09T08:53:2{index}.900Z",
            "metadata": json.dumps({"langgraph_node": name}),
            **own,
        }
        for index, parent, name, kind, own in rows
    ]
    about = {
        "id": trace,
        "name": "TideGraph",
        "sessionId": "harbour-2",
        "userId": "u-4",
        "timestamp": "2025-10-09T08:53:20Z",
    }
    return {"trace": about, "observations": observations}


FILES: Final[dict[str, Callable[[], Any]]] = {
    "otlp-rag.json": otlp_rag,
    "jaeger-services.json": jaeger_services,
    "zipkin-deep.json": zipkin_deep,
    "langfuse-graph.json": langfuse_graph,
}
"""By file name."""
