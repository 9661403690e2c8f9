"""Threads of a sink take turns more often while it runs."""

import sys

from prela_stream.app.switching import quick_switches


def test_switches_are_quicker_for_the_block_only() -> None:
    before = sys.getswitchinterval()
    with quick_switches():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
