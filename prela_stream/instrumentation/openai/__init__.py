"""Traces the calls of the `openai` client library."""
