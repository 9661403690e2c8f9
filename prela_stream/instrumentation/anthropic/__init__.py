"""Traces the calls of the `anthropic` client library."""
