"""The whole way on a real Kafka, each part a process of its own: agents, topics, worker, sink, store."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from prela_stream import demo
from prela_stream.app import open_reader
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.sampled import decode_kept
from prela_stream.codec.spans import decode_head
from prela_stream.config import load_settings
from prela_stream.demo.agents import AGENTS
from tests.support.kafka_log import KafkaLog

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_what_agents_record_is_decided_on_kafka_and_stored(kafka: str, kafka_prefix: str, tmp_path: Path) -> None:
    env = {
        "PRELA_KAFKA_BOOTSTRAP": kafka,
        "PRELA_TOPICS_PREFIX": kafka_prefix,
        "PRELA_TOPICS_PARTITIONS": "3",
        "PRELA_TOPICS_SAMPLED_PARTITIONS": "2",
        "PRELA_DIRECTORY": str(tmp_path / "prela"),
    }
    settings = load_settings(env=env)
    assert settings.transport == "kafka"
    runs = 2 * len(AGENTS)
    result = await demo.run(settings, runs=runs, seed=3)
    assert (result.runs, result.traces, result.undecided, result.incomplete) == (runs, runs, 0, 0)
    assert result.ledger.balances
    assert result.ledger.acknowledged == result.ledger.recorded > result.spans > runs * 2
    topics = msgspec.structs.replace(settings.topics, prefix=f"{kafka_prefix}-demo")
    group = f"{topics.prefix}.{settings.worker.group}"
    async with KafkaLog(kafka) as outside:
        await outside.transactions_are_over([f"{group}-{topics.spans}-{n}" for n in range(topics.partitions)])
        decided = await outside.records(topics.decisions, topics.partitions)
        sampled = await outside.records(topics.sampled, topics.sampled_partitions)
        assert await outside.held_back(topics.decisions, topics.partitions) == 0
        assert await outside.held_back(topics.sampled, topics.sampled_partitions) == 0
    decisions = [one for record in decided for one in decode_decisions(record.value or b"")]
    assert Counter(decision.kept for decision in decisions) == {True: result.kept, False: result.dropped}
    on_topic: dict[str, set[bytes | None]] = {}
    for record in sampled:
        fragment = decode_kept(record.value or b"")
        spans = on_topic.setdefault(fragment.decision.trace_id.hex(), set())
        spans.update(decode_head(raw).span_id for _, raw in fragment.items)
    assert len(on_topic) == result.kept
    async with open_reader(settings) as reader:
        for trace_id, spans in on_topic.items():
            stored = await reader.get(trace_id)
            assert stored is not None
            assert {bytes.fromhex(span.span_id) for span in stored.spans} == spans
