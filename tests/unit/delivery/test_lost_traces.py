"""LostTraces: which traces the workers still have to be warned of."""

from prela_stream.delivery.lost_traces import LostTraces
from tests.unit.delivery.queues import trace


def test_lost_traces_are_named_up_to_the_limit_and_then_everywhere() -> None:
    lost = LostTraces(2)
    assert not lost
    for number in (1, 2, 1):
        lost.add(trace(number))
    assert (len(lost), lost.everywhere) == (2, False)
    lost.add(trace(3))
    assert (len(lost), lost.everywhere) == (2, True)
    assert trace(3) not in lost
    assert lost.take(1) == [trace(1)]
    assert lost.take(5) == [trace(2)]
    assert lost
