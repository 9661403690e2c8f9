"""When a sink is ready, and why it is not."""

from prela_stream.sinks.observer import SinkObserver
from prela_stream.transport.base import Poll
from tests.support.kept import SOURCE


def test_a_sink_is_ready_once_it_has_partitions_and_while_it_can_write() -> None:
    observer = SinkObserver("prela.sinks.sqlite")
    assert observer.problems(60) == [
        "the sink has not received its partitions from the consumer group prela.sinks.sqlite"
    ]
    consumer: object = object()
    observer.consumer = consumer  # type: ignore[assignment]
    observer.polled(Poll(assigned=(SOURCE,), rebalanced=True))
    assert observer.problems(60) == []
    observer.failure = "the disk is full"
    assert observer.problems(60) == ["the sink cannot write, and tries again: the disk is full"]
