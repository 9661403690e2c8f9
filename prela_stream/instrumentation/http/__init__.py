"""Traces over HTTP: server middleware, client headers, response bodies and event streams."""
