"""Fixtures for every test."""

import pytest

pytest.register_assert_rewrite("tests.support.oracle", "tests.support.crowd")  # they judge: let them say what differs

pytest_plugins = ["prela_stream.pytest_plugin", "pytester", "tests.support.kafka", "tests.support.secured_kafka"]
