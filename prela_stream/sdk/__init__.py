"""What runs inside an agent's own process: spans, the current span, head sampling and propagation."""
