"""Spans of OpenTelemetry: over HTTP, over gRPC and from a topic into `spans`. Every way in uses the normaliser of `otel`."""
