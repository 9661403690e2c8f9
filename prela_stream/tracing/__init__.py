"""Spans in the agent's process: tracer, span, current span, context, decorator, head sampling."""
