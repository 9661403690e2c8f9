"""Fixtures for every integration test."""

import pytest

from prela_stream.tracing.open_spans import _all_spans


@pytest.fixture(autouse=True)
def no_open_spans_of_earlier_tests() -> None:
    """End the spans that earlier tests of this process have left open, such as those of streams that nothing has read.

    A pipeline ends every open span of its process when it ends, so they would be among the spans that this test counts.
    """
    for span in _all_spans():
        if span._output.recorder is None:
            span.end()
