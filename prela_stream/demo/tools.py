"""The tools of the demo's agents, and the span that each call of one gets."""

import ast
import operator
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from anthropic.types import ToolParam, ToolResultBlockParam, ToolUseBlock

from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.tracing.tracer import get_tracer

Tool = Callable[[random.Random, dict[str, Any]], Awaitable[str]]


class ToolError(Exception):
    """A tool failed. The agent reports it to the model and continues."""


class BrokenToolError(Exception):
    """A tool with a bug: the whole run fails."""


async def search(rng: random.Random, arguments: dict[str, Any]) -> str:
    """Finds two documents; one search in fifteen times out."""
    await anyio.sleep(rng.uniform(0.005, 0.03))
    if rng.random() < 1 / 15:
        msg = f"the search for {arguments['query']!r} timed out"
        raise ToolError(msg)
    return (
        f"1. A survey of {arguments['query']} (2025). 2. What we still do not know about {arguments['query']} (2026)."
    )


_OPERATORS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {ast.Add: operator.add, ast.Mult: operator.mul}


async def calculator(rng: random.Random, arguments: dict[str, Any]) -> str:
    """Sums and products of integers."""
    await anyio.sleep(rng.uniform(0.0, 0.002))

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
        msg = f"only sums and products of integers can be calculated, got {ast.unparse(node)}"
        raise ToolError(msg)

    return str(value(ast.parse(arguments["expression"], mode="eval").body))


async def lookup_order(rng: random.Random, arguments: dict[str, Any]) -> str:
    """The state of an order."""
    await anyio.sleep(rng.uniform(0.005, 0.02))
    return f"order {arguments['order_id']}: shipped, expected in {rng.randint(1, 9)} days"


async def write_report(rng: random.Random, arguments: dict[str, Any]) -> str:
    """Always fails: its disk is full."""
    await anyio.sleep(rng.uniform(0.002, 0.01))
    msg = f"cannot write the report on {arguments['title']!r}: no space left on device"
    raise BrokenToolError(msg)


TOOLS: Final[dict[str, Tool]] = {
    "search": search,
    "calculator": calculator,
    "lookup_order": lookup_order,
    "write_report": write_report,
}


def definition(name: str, parameter: str, kind: str, description: str) -> ToolParam:
    """A tool as the request to the model describes it; each takes one parameter."""
    properties: dict[str, object] = {parameter: {"type": kind}}
    schema: dict[str, object] = {"type": "object", "properties": properties, "required": [parameter]}
    return {"name": name, "description": description, "input_schema": schema}


SEARCH: Final = definition("search", "query", "string", "Search the literature.")
CALCULATOR: Final = definition("calculator", "expression", "string", "Calculate with integers.")
LOOKUP_ORDER: Final = definition("lookup_order", "order_id", "integer", "Read the state of an order.")
WRITE_REPORT: Final = definition("write_report", "title", "string", "Write a report to disk.")


async def call_tool(use: ToolUseBlock, rng: random.Random) -> ToolResultBlockParam:
    """Run the tool that the model asks for, on a TOOL span; a ToolError becomes an answer to the model."""
    attributes = {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: use.name,
        semconv.TOOL_CALL_ID: use.id,
        semconv.TOOL_CALL_ARGUMENTS: use.input,
    }
    try:
        async with get_tracer().span(
            f"execute_tool {use.name}", span_type=SpanType.TOOL, attributes=attributes
        ) as span:
            result = await TOOLS[use.name](rng, dict(use.input))
            span.set_attribute(semconv.TOOL_CALL_RESULT, result)
    except ToolError as error:
        return {"type": "tool_result", "tool_use_id": use.id, "content": str(error), "is_error": True}
    return {"type": "tool_result", "tool_use_id": use.id, "content": result}
