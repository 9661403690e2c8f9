"""Fixtures of the tests of propagation."""

from collections.abc import Iterator

import pytest

from prela_stream.testing import CapturedSpans, capture_spans


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    """The spans of the test."""
    with capture_spans() as spans:
        yield spans
