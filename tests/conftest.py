"""Fixtures for every test."""

pytest_plugins = ["prela_stream.pytest_plugin", "pytester", "tests.support.kafka", "tests.support.secured_kafka"]
