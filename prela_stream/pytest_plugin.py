"""A fixture for the tests of your own code.

Put `pytest_plugins = ["prela_stream.pytest_plugin"]` into the conftest.py next to your pytest settings and ask for
`captured_spans`. It is not an entry point: that would be imported in every run of pytest of the environment, wanted or not.
"""

from collections.abc import Iterator

import pytest

from prela_stream.testing import CapturedSpans, capture_spans


@pytest.fixture
def captured_spans() -> Iterator[CapturedSpans]:
    """The spans of the test, as `capture_spans()` gives them; whatever was current or set up outside is not seen."""
    with capture_spans() as captured:
        yield captured
