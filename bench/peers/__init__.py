"""The OpenTelemetry Collector and our worker as processes on the same spans: what bench/collector.py measures."""
