"""An OpenTelemetry Collector built from the Go module proxy: the peer of the benchmarks, and a real receiver for OTLP tests."""
