"""The Kafka transport where Kafka differs from a log file: marks of transactions, limits of batches, topics that vanish."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition as TheirPartition

from prela_stream.errors import FencedError, OutcomeUnknownError, TooLargeError, TransportError, UnknownTopicError
from prela_stream.transport.base import CommitOutcome, Committed, Consumer, Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka import KafkaTransport
from prela_stream.transport.kafka.admin.connection import AdminConnection
from prela_stream.transport.kafka.client.sender import Sender
from prela_stream.transport.options import KafkaOptions
from tests.contracts.transport_harness import DEADLINE, assigned, everything, reading, send, take, values
from tests.support.kafka import no_client_is_left

pytestmark = pytest.mark.kafka


@pytest.fixture
async def transport(kafka: str) -> AsyncIterator[KafkaTransport]:
    """A transport on the shared broker, patient with one that stalls. What it leaves running when closed fails the test."""
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), connect_timeout_ms=60_000)) as opened:
        yield opened
    await no_client_is_left()


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[Any]:
    """Somebody else's admin client."""
    client: Any = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    yield client
    await client.close()


@pytest.fixture
def place(kafka_prefix: str) -> TopicPartition:
    """A partition of the test's own topic."""
    return TopicPartition(f"{kafka_prefix}.topic", 0)


async def make(transport: KafkaTransport, place: TopicPartition, **more: Any) -> None:
    """Make the topic of `place`, with one partition."""
    await transport.create_topics([TopicSpec(name=place.topic, partitions=1, **more)])


async def until(transport: KafkaTransport, place: TopicPartition, *, there: bool) -> None:
    """Wait until a topic is there, or is not."""
    with anyio.fail_after(DEADLINE):
        while (place.topic in await transport.topics()) != there:
            await anyio.sleep(0.05)


async def test_topics_are_made_when_a_broker_is_alive_again_and_known_to_all_that_are(
    transport: KafkaTransport, place: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that stalled longer than its session lists none as alive until it is heard of again."""
    ask = AdminConnection.metadata
    answers: list[Any] = []

    async def metadata(self: AdminConnection, topics: list[str] | None, *, node: int | None = None) -> Any:
        answers.append(await ask(self, topics, node=node))
        if len(answers) in (1, 3):  # before making, and before looking whether all know
            answers[-1].brokers = []
        return answers[-1]

    monkeypatch.setattr(AdminConnection, "metadata", metadata)
    await make(transport, place)
    assert [len(answer.brokers) for answer in answers[:5]] == [0, 1, 0, 1, 1]
    await send(await transport.producer(), place, b"x")


async def test_a_reader_reaches_the_end_behind_marks_and_aborted_records(
    transport: KafkaTransport, kafka: str, place: TopicPartition
) -> None:
    await make(transport, place)
    writer = await transport.writer("edge", place)
    assert await writer.commit([(place, Record(value=b"kept"))], 1) is CommitOutcome.COMMITTED
    for number in range(3):
        async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=f"{place.topic}-{number}") as other:
            await other.begin_transaction()
            await (await other.send(place.topic, b"aborted", partition=0))
            await other.abort_transaction()
    consumer = await reading(transport, place.topic)
    with anyio.fail_after(DEADLINE):
        while await consumer.end_offset(place) < 8:  # one Record and three aborted ones, each with the mark of its end
            await anyio.sleep(0.02)
    [found] = await everything(transport, place)
    assert values(found) == [b"kept"]
    assert values(await take(consumer, 1)) == [b"kept"]
    await consumer.seek(place, 2)
    with anyio.fail_after(DEADLINE):
        while await consumer.position(place) < 8:
            assert (await consumer.poll()).records == ()


async def test_a_poll_does_not_wait_where_only_marks_are_left(transport: KafkaTransport, place: TopicPartition) -> None:
    await make(transport, place)
    writer = await transport.writer("edge", place)
    await writer.commit([(place, Record(value=b"x"))], 1)
    consumer = await reading(transport, place.topic)
    await consumer.seek(place, 1)  # the mark
    with anyio.fail_after(DEADLINE):
        assert (await consumer.poll(timeout=600)).records == ()
    assert await consumer.position(place) == 2


async def test_records_larger_than_a_fetch_and_a_large_commit(kafka: str, place: TopicPartition) -> None:
    options = KafkaOptions(bootstrap=(kafka,), partition_fetch_bytes=50_000, fetch_bytes=100_000, compression="none")
    async with KafkaTransport(options) as transport:
        await make(transport, place, max_record_bytes=3_000_000)
        last = await send(await transport.producer(), place, b"x" * 3_000_000)
        writer = await transport.writer("edge", place)
        large = [bytes([number % 256]) * 30_000 for number in range(200)]
        assert await writer.commit([(place, Record(value=value)) for value in large], 1) is CommitOutcome.COMMITTED
        consumer = await reading(transport, place.topic)
        found = await take(consumer, 201)
    assert (len(found[0].value or b""), last) == (3_000_000, 0)
    assert values(found[1:]) == large


async def test_a_batch_beyond_the_topics_limit_is_refused_whole_and_the_producer_lives_on(
    kafka: str, place: TopicPartition
) -> None:
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), compression="none")) as transport:
        await make(transport, place, max_record_bytes=10_000)
        producer = await transport.producer()
        await send(producer, place, b"first")
        with pytest.raises(
            TooLargeError, match=r"50,000 bytes.*more than the topic accepts.*nothing was written"
        ) as caught:
            await send(producer, place, *([b"x" * 10_000] * 5))
        assert not isinstance(caught.value, OutcomeUnknownError)
        await send(producer, place, b"second")
        assert [values(part) for part in await everything(transport, place)] == [[b"first", b"second"]]


async def test_records_that_shrink_go_in_one_batch_whatever_their_sum(
    transport: KafkaTransport, place: TopicPartition
) -> None:
    await make(transport, place, max_record_bytes=10_000)
    await send(await transport.producer(), place, *([b"x" * 10_000] * 50))
    [found] = await everything(transport, place)
    assert [len(record.value or b"") for record in found] == [10_000] * 50


async def test_a_header_that_does_not_fit_aborts_the_commit(
    transport: KafkaTransport, place: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    await make(transport, place, max_record_bytes=1_000)
    writer = await transport.writer("edge", place)
    noise = bytes(index * index % 251 ^ index >> 8 & 255 for index in range(60_000))
    both = [(place, Record(value=b"fits")), (place, Record(value=b"fits", headers=(("large", noise),)))]
    assert await writer.commit(both, 1) is CommitOutcome.ABORTED
    assert "MessageSizeTooLarge" in caplog.text
    with pytest.raises(FencedError, match="ended aborted"):
        await writer.commit([], 1)
    again = await transport.writer("edge", place)
    assert again.committed is None
    assert await everything(transport, place) == [[]]


async def test_a_deleted_topic_stays_deleted_while_all_kinds_of_clients_go_on(
    kafka: str, place: TopicPartition, admin: Any
) -> None:
    source = TopicPartition(f"{place.topic}.source", 0)
    refresh = {"metadata_max_age_ms": 100}
    options = KafkaOptions(
        bootstrap=(kafka,),
        extra=refresh,
        delivery_timeout_ms=8_000,
        transaction_timeout_ms=16_000,  # half of it for a commit
    )
    async with KafkaTransport(options) as transport:
        await make(transport, place)
        await make(transport, source)
        producer, writer = await transport.producer(), await transport.writer("edge", source)
        consumer = await reading(transport, place.topic)
        member = await reading(transport, place.topic, group=place.topic)
        await send(producer, place, b"x")
        assert await writer.commit([(place, Record(value=b"y"))], 1) is CommitOutcome.COMMITTED
        await take(consumer, 2)
        await admin.delete_topics([place.topic])
        async with KafkaTransport(options) as elsewhere:
            await until(elsewhere, place, there=False)
        for _ in range(10):
            await consumer.poll(timeout=0.1)
            await member.poll(timeout=0.1)
        late = [(place, Record(value=b"z"))]
        assert await writer.commit(late, 2) is CommitOutcome.ABORTED
        with pytest.raises(UnknownTopicError, match=r"topics create"):
            await (await transport.writer("edge", source)).commit(late, 2)
        with pytest.raises(UnknownTopicError, match=r"topics create"):
            await send(producer, place, b"z")
        assert place.topic not in await transport.topics()


async def test_asking_for_topics_that_there_are_not_makes_none(
    transport: KafkaTransport, place: TopicPartition
) -> None:
    producer = await transport.producer()
    for question in (
        transport.consumer([place.topic]),
        transport.consumer([place.topic], group="edge"),
        transport.writer("edge", place),
        transport.committed("edge", place),
        send(producer, place, b"x"),
    ):
        with pytest.raises(UnknownTopicError, match=r"topics create"):
            await question
    assert place.topic not in await transport.topics()


async def test_offsets_before_the_first_kept_record_and_beyond_the_end(
    transport: KafkaTransport, place: TopicPartition, admin: Any
) -> None:
    await make(transport, place)
    producer = await transport.producer()
    await send(producer, place, *(b"%d" % number for number in range(10)))
    member = await reading(transport, place.topic, group=place.topic)
    await member.commit({place: Committed(offset=2)})
    await member.aclose()
    await admin.delete_records({TheirPartition(place.topic, 0): RecordsToDelete(before_offset=5)})
    consumer = await reading(transport, place.topic)
    assert await consumer.beginning_offset(place) == 5
    await consumer.seek(place, 1)
    assert values(await take(consumer, 5)) == [b"5", b"6", b"7", b"8", b"9"]
    await consumer.seek(place, 12)
    assert (await consumer.poll(timeout=0.5)).records == ()
    assert await consumer.position(place) == 12
    await send(producer, place, b"10", b"11", b"12")
    assert values(await take(consumer, 1)) == [b"12"]
    again = await reading(transport, place.topic, group=place.topic)
    assert values(await take(again, 8))[0] == b"5"


async def test_what_a_topic_made_by_others_lacks_is_said(
    transport: KafkaTransport, place: TopicPartition, admin: Any
) -> None:
    settings = {"cleanup.policy": "compact,delete", "min.insync.replicas": "2", "max.message.bytes": "20000"}
    await admin.create_topics([NewTopic(place.topic, 3, 1, topic_configs=settings)])
    await until(transport, place, there=True)
    found = (await transport.topics())[place.topic]
    assert (found.partitions, found.cleanup, found.max_record_bytes) == (3, "compact", 20_000 - 16_384)
    stamped, policy, in_sync = found.problems
    assert "LogAppendTime, found CreateTime" in stamped
    assert "compact,delete" in policy
    assert "nothing can be written" in in_sync


async def test_an_open_transaction_of_a_dead_process_ends_when_its_writer_is_opened(
    transport: KafkaTransport, kafka: str, place: TopicPartition
) -> None:
    await make(transport, place)
    dead = Sender(KafkaOptions(bootstrap=(kafka,)), f"edge-{place.topic}-0")
    await dead.start("a test")
    await dead.kafka.begin_transaction()
    await (await dead.append(place, [Record(value=b"open")]))
    await dead.kafka.send_offsets_to_transaction({TheirPartition(place.topic, 0): (1, "")}, "edge")
    await dead.aclose()  # without ending the transaction
    await send(await transport.producer(), place, b"behind it")
    consumer = await reading(transport, place.topic)
    assert (await consumer.poll(timeout=0.5)).records == ()
    assert await consumer.end_offset(place) == 0
    assert await transport.committed("edge", place) is None
    assert (await transport.writer("edge", place)).committed is None
    assert values(await take(consumer, 1)) == [b"behind it"]


async def test_a_cancelled_commit_leaves_no_transaction_open(
    transport: KafkaTransport, place: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prela_stream.transport.kafka.writer._ABORT_S", DEADLINE)  # also with a broker that stalls
    await make(transport, place)
    cancelled = turn = 0
    while turn < 12 or cancelled < 4:
        writer = await transport.writer("edge", place)
        with anyio.move_on_after(turn % 12 * 0.001) as scope:
            await writer.commit([(place, Record(value=b"x"))], turn)
        cancelled += scope.cancelled_caught
        last = await send(await transport.producer(), place, b"after")
        consumer = await transport.consumer([place.topic])
        with anyio.fail_after(30):  # an open transaction would hold the end back for a minute
            while await consumer.end_offset(place) <= last:
                await anyio.sleep(0.01)
        await consumer.aclose()
        turn += 1


@pytest.mark.timeout(300)  # its openings take turns, which a busy machine makes long
async def test_two_writers_that_fence_each_other_in_turn_never_write_twice(
    transport: KafkaTransport, place: TopicPartition
) -> None:
    await make(transport, place)
    written: list[bytes] = []

    async def worker(name: bytes) -> None:
        while len(written) < 40:
            writer = await transport.writer("edge", place)
            offset = writer.committed.offset if writer.committed else 0
            for number in range(offset, offset + 7):
                value = b"%s:%d" % (name, number)
                try:
                    outcome = await writer.commit([(place, Record(value=value))] * 3, number + 1)
                except FencedError:
                    break
                if outcome is not CommitOutcome.COMMITTED:
                    break
                written.append(value)
            await writer.aclose()

    async with anyio.create_task_group() as tasks:
        for name in (b"a", b"b", b"c"):
            tasks.start_soon(worker, name)
    await transport.writer("edge", place)  # what was committed last can be seen now
    [found] = await everything(transport, place)
    seen = values(found)
    assert set(written) <= set(seen)
    assert [int((value or b"").partition(b":")[2]) for value in seen[::3]] == list(range(len(seen) // 3))
    assert seen[::3] == seen[1::3] == seen[2::3]
    assert len({(value or b"")[:1] for value in seen}) > 1, "one of them did all the work: nobody was fenced"


async def test_a_member_that_comes_is_noticed_long_before_a_session_is_over(kafka: str, place: TopicPartition) -> None:
    """Those who have partitions learn of it with the answer to a heartbeat; until then the new one waits."""
    slow = KafkaOptions(bootstrap=(kafka,), session_timeout_ms=300_000, rebalance_timeout_ms=300_000)
    async with KafkaTransport(slow) as transport:
        await transport.create_topics([TopicSpec(name=place.topic, partitions=2)])
        first = await transport.consumer([place.topic], group=place.topic)
        await assigned(first, 2)
        second = await transport.consumer([place.topic], group=place.topic)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_poll_for_ever, first)
            with anyio.fail_after(DEADLINE):
                await assigned(second, 1)
            tasks.cancel_scope.cancel()


async def _poll_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.poll(timeout=1.0)


async def test_a_group_that_a_broker_refuses_says_why(kafka: str, place: TopicPartition) -> None:
    async with KafkaTransport(KafkaOptions(bootstrap=(kafka,), session_timeout_ms=100)) as transport:
        await make(transport, place)
        consumer = await transport.consumer([place.topic], group="edge")
        with pytest.raises(TransportError, match="InvalidSessionTimeout"):
            await assigned(consumer)


async def test_closing_while_a_poll_waits_and_a_send_is_under_way(
    transport: KafkaTransport, place: TopicPartition, caplog: pytest.LogCaptureFixture
) -> None:
    await make(transport, place)
    caplog.set_level(logging.WARNING)
    consumer = await reading(transport, place.topic, group=place.topic)
    producer = await transport.producer()

    async def poll() -> None:
        while True:
            await consumer.poll(timeout=30)

    async def poll_until_closed() -> None:
        with pytest.raises(TransportError, match="closed"):
            await poll()

    async def sender() -> None:
        while True:
            await send(producer, place, b"x")

    async def send_until_closed() -> None:
        with pytest.raises(TransportError):
            await sender()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll_until_closed)
        tasks.start_soon(send_until_closed)
        with anyio.fail_after(DEADLINE):
            while await consumer.end_offset(place) == 0:
                await anyio.sleep(0.01)
        await producer.aclose()
        await consumer.aclose()
    assert "never retrieved" not in caplog.text


async def test_an_own_consumer_task_that_died_is_replaced_and_nothing_is_lost(
    transport: KafkaTransport, place: TopicPartition
) -> None:
    await make(transport, place)
    producer = await transport.producer()
    await send(producer, place, b"a", b"b")
    alone = await reading(transport, place.topic)
    member = await reading(transport, place.topic, group=place.topic)
    for consumer in (alone, member):
        assert values(await take(consumer, 2)) == [b"a", b"b"]
    await member.commit({place: Committed(offset=2)})
    for consumer in (alone, member):
        fetcher = consumer._fetcher  # type: ignore[attr-defined]  # the contract knows of none
        fetcher._kafka._fetcher._fetch_task.cancel()
    await send(producer, place, b"c")
    assert values(await take(alone, 1)) == [b"c"]
    revoked: set[TopicPartition] = set()
    with anyio.fail_after(DEADLINE):
        while not revoked:
            poll = await member.poll()
            revoked |= set(poll.revoked)
            member.resume(*poll.assigned)
    await assigned(member)
    assert values(await take(member, 1)) == [b"c"]
