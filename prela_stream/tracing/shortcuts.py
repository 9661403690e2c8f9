"""The span methods of the global tracer as functions: `prela_stream.agent("planner")` for `get_tracer().agent("planner")`.

The global tracer is one object for the life of the process, so its bound methods work as functions.
"""

from typing import Final

from prela_stream.tracing.tracer import get_tracer

_tracer: Final = get_tracer()
span: Final = _tracer.span
agent: Final = _tracer.agent
llm: Final = _tracer.llm
tool: Final = _tracer.tool
retrieval: Final = _tracer.retrieval
embedding: Final = _tracer.embedding
