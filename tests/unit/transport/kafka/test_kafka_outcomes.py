"""What a commit's failure means, by how often the broker was asked to end it; how a commit is cut; what options show."""

import aiokafka.errors as kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.errors import FencedError
from prela_stream.transport.base import CommitOutcome, Record, TopicPartition
from prela_stream.transport.kafka.admin.connection import AdminConnection
from prela_stream.transport.kafka.admin.groups import Groups
from prela_stream.transport.kafka.admin.topics import Topics
from prela_stream.transport.kafka.writer import KafkaWriter, _cut
from prela_stream.transport.options import KafkaOptions

SECRET = "hunter2-is-secret"


def writer() -> KafkaWriter:
    """One that was never opened."""
    options = KafkaOptions()
    admin = AdminConnection(options)
    topics = Topics(admin, options)
    source = TopicPartition("acme.spans", 3)
    return KafkaWriter(options, topics, Groups(admin, topics), "workers", source)


def wrapped(cause: BaseException) -> kafka.KafkaError:
    """As aiokafka reports what ended its background task."""
    error = kafka.KafkaError("Unexpected error during batch delivery")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "ends", "outcome"),
    [
        (TimeoutError(), 0, CommitOutcome.ABORTED),
        (TimeoutError(), 1, CommitOutcome.UNKNOWN),
        (TimeoutError(), 7, CommitOutcome.UNKNOWN),
        (kafka.MessageSizeTooLargeError(), 0, CommitOutcome.ABORTED),
        (wrapped(kafka.InvalidProducerIdMapping()), 0, CommitOutcome.ABORTED),
        (wrapped(kafka.InvalidTxnState()), 1, CommitOutcome.ABORTED),
        (wrapped(kafka.InvalidTxnState()), 2, CommitOutcome.UNKNOWN),
        (wrapped(kafka.UnknownError()), 1, CommitOutcome.UNKNOWN),
        (kafka.ProducerFenced(), 2, CommitOutcome.UNKNOWN),
        (AssertionError("Invalid state transition"), 0, CommitOutcome.ABORTED),
    ],
)
def test_what_a_failure_means(
    error: BaseException, ends: int, outcome: CommitOutcome, caplog: pytest.LogCaptureFixture
) -> None:
    assert writer()._failed(error, ends) is outcome
    assert f"acme.spans[3] for group workers: {outcome.value}" in caplog.text


@pytest.mark.parametrize(
    "error", [kafka.ProducerFenced(), kafka.InvalidProducerEpoch(), wrapped(kafka.ProducerFenced())]
)
@pytest.mark.parametrize("ends", [0, 1])
def test_a_fence_that_answers_the_only_question_is_certain(error: BaseException, ends: int) -> None:
    with pytest.raises(FencedError, match=r"acme\.spans\[3\] for group 'workers'.*another writer"):
        writer()._failed(error, ends)


async def test_a_writer_that_is_not_open_writes_nothing() -> None:
    with pytest.raises(FencedError, match="never opened"):
        await writer().commit([], 1)


@given(st.lists(st.integers(0, 600_000), max_size=30))
def test_a_commit_is_cut_into_batches_in_order(sizes: list[int]) -> None:
    records = [Record(value=b"x" * size) for size in sizes]
    batches = list(_cut(records))
    assert [record for batch in batches for record in batch] == records
    for batch in batches:
        assert batch
        assert len(batch) == 1 or sum(len(record.value or b"") for record in batch) <= 256 << 10


def test_options_show_no_secret_and_only_what_was_set() -> None:
    assert repr(KafkaOptions()) == "KafkaOptions()"
    shown = repr(
        KafkaOptions(
            bootstrap=("broker:9092",),
            sasl_username="me",
            sasl_password=SECRET,
            ssl_password=SECRET,
            extra={"sasl_kerberos_service_name": SECRET},
        )
    )
    assert SECRET not in shown
    assert "bootstrap=('broker:9092',), " in shown
    assert "sasl_password=<hidden>" in shown
