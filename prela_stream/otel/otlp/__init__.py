"""OTLP requests, as bytes of protobuf or JSON, into spans. Pure; needs the extra `otlp` for protobuf."""
