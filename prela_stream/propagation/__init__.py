"""Carries a trace context between processes: W3C headers, tracestate, carriers and process pools."""
