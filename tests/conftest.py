"""Fixtures for every test, and how hypothesis looks for examples."""

import gc

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.support.oracle", "tests.support.crowd")  # they judge: let them say what differs

pytest_plugins = [
    "prela_stream.pytest_plugin",
    "pytester",
    "tests.support.cores",
    "tests.support.kafka",
    "tests.support.secured_kafka",
    "tests.support.kept_log",
    "tests.support.small_disk",
]

# How long an example takes says how busy the machine is, and the same tree gives the same examples everywhere. To look for
# others: `pytest --hypothesis-profile=searching`.
settings.register_profile("searching", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("searching"), derandomize=True)
# For `make quick`, and nothing else.
settings.register_profile("quick", settings.get_profile("repeatable"), max_examples=25)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection: each `gc.collect()` of a test would walk through all of them."""
    gc.collect()
    gc.freeze()
