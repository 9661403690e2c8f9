"""Spans of other tracers: their attributes in the terms of `model.semconv`, and the formats in which they arrive. Pure."""
