"""What a request waits for, and what it is answered if the log does not take its records."""

from pathlib import Path

import anyio
import msgspec
import pytest

from prela_stream import telemetry
from prela_stream.errors import TransportError, UnknownTopicError
from prela_stream.otel.otlp.schema import RpcStatus
from prela_stream.transport.topics import TopicMismatchError, topic_specs
from tests.support.otlp import Answer, Running, receiving, request, settings_for
from tests.support.processes import DEADLINE
from tests.support.unreachable import Unreachable
from tests.support.workers import local_log

BODY = request({}).SerializeToString()


async def answer_to(running: Running, answers: list[Answer]) -> None:
    answers.append(await running.post(BODY))


def value(name: str, **labels: str) -> float:
    return telemetry.metrics().value(name, **labels)


async def test_no_answer_before_the_acknowledgement(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with local_log(tmp_path, settings.topics) as log:
        stuck = Unreachable(log)
        answers: list[Answer] = []
        async with receiving(tmp_path, stuck) as running, anyio.create_task_group() as tasks:
            tasks.start_soon(answer_to, running, answers)
            with anyio.fail_after(DEADLINE):
                while not stuck.sent:
                    await anyio.sleep(0.005)
            assert answers == []
            assert value("prela_otlp_queue_bytes") > len(BODY)
            stuck.open.set()
            with anyio.fail_after(DEADLINE):
                while not answers:
                    await anyio.sleep(0.005)
            assert answers[0].status == 200
            assert value("prela_otlp_queue_bytes") == 0
            assert len(await running.spans()) == 1


async def test_a_full_queue_asks_to_send_again(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with local_log(tmp_path, settings.topics) as log:
        stuck = Unreachable(log)
        answers: list[Answer] = []
        body = request({"attributes": {"a": "x" * 700_000}}).SerializeToString()
        async with receiving(tmp_path, stuck, max_queue_bytes=1 << 20) as running, anyio.create_task_group() as tasks:
            tasks.start_soon(answer_to, running, answers)
            with anyio.fail_after(DEADLINE):
                while not stuck.sent:
                    await anyio.sleep(0.005)
            for _ in range(2):
                refused = await running.post(body * 2)
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
                assert "otlp.max_queue_bytes" in RpcStatus.FromString(refused.body).message
            stuck.open.set()
            with anyio.fail_after(DEADLINE):
                while not answers:
                    await anyio.sleep(0.005)
            assert (await running.post(request({}).SerializeToString())).status == 200
            assert value("prela_otlp_queue_bytes") == 0


async def test_a_log_that_fails_asks_to_send_again_and_recovers(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with local_log(tmp_path, settings.topics) as log:
        stuck = Unreachable(log)
        stuck.failure = TransportError("the disk is full")
        stuck.open.set()
        async with receiving(tmp_path, stuck) as running:
            before = value("prela_otlp_sends_total", outcome="failed")
            refused = await running.post(BODY)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert "the disk is full" in RpcStatus.FromString(refused.body).message
            assert value("prela_otlp_sends_total", outcome="failed") == before + 1
            stuck.failure = None
            assert (await running.post(BODY)).status == 200
            assert len(await running.spans()) == 1


async def test_a_log_that_does_not_answer_asks_to_send_again(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with local_log(tmp_path, settings.topics) as log:
        stuck = Unreachable(log)
        async with receiving(tmp_path, stuck, answer_timeout_ms=50) as running:
            refused = await running.post(BODY)
            assert refused.status == 503
            assert "spans.0" in refused.body.decode() or "did not" in refused.body.decode()
            stuck.open.set()
            with anyio.fail_after(DEADLINE):
                while (await running.post(BODY)).status != 200:
                    await anyio.sleep(0.01)


async def test_missing_and_other_topics_end_the_receiver(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    other = msgspec.structs.replace(settings.topics, partitions=3)
    async with local_log(tmp_path, other) as log:
        with pytest.RaisesGroup(pytest.RaisesExc(TopicMismatchError, match="partitions"), flatten_subgroups=True):
            async with receiving(tmp_path / "x", log):
                await anyio.sleep_forever()
    (tmp_path / "empty").mkdir()
    renamed = msgspec.structs.replace(settings.topics, prefix="other")
    async with local_log(tmp_path / "empty", renamed) as log:
        assert await log.create_topics(topic_specs(renamed)) == []
        with pytest.RaisesGroup(pytest.RaisesExc(UnknownTopicError, match="topics create"), flatten_subgroups=True):
            async with receiving(tmp_path / "x", log):
                await anyio.sleep_forever()
