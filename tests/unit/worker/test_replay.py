"""A replay rebuilds the open traces. It counts nothing and writes nothing twice."""

from prela_stream.worker.replay import Replay

ONE, TWO = b"1" * 16, b"2" * 16


def test_late_spans_are_written_only_for_decisions_of_the_replay() -> None:
    replay = Replay(20)
    assert not replay.writes_late(ONE)
    replay.decided(TWO)
    assert replay.writes_late(TWO)
    assert not replay.writes_late(ONE)
