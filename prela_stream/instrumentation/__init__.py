"""Traces the calls of third-party libraries by patching them. `registry` names the instrumentors."""
