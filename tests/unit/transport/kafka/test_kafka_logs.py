"""Which messages of aiokafka are logged: not those that this package reports itself; others once a minute."""

import logging
from pathlib import Path

import aiokafka
import pytest

from prela_stream.transport.kafka.connect.logs import _REPORTED_ELSEWHERE, OnceAMinute, limit_logs

REBALANCING = "Heartbeat failed for group %s because it is rebalancing"
AWAY = "Heartbeat failed for group %s: coordinator (node %s) is either not started or not valid"
LOGGER = "aiokafka.consumer.group_coordinator"


def test_a_member_that_joins_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    limit_logs()
    log = logging.getLogger(LOGGER)
    log.warning(REBALANCING, "prela.sampler")
    assert [record.getMessage() for record in caplog.records if record.name == LOGGER] == []


@pytest.mark.parametrize("message", _REPORTED_ELSEWHERE)
def test_each_message_that_is_left_out_is_one_of_aiokafka(message: str) -> None:
    sources = Path(aiokafka.__file__).parent.rglob("*.py")
    assert any(message in source.read_text(encoding="utf-8") for source in sources), "aiokafka has another message now"


def test_a_message_that_repeats_is_logged_once_a_minute() -> None:
    keeper = OnceAMinute()
    records = [logging.LogRecord(LOGGER, logging.WARNING, "", 0, AWAY, ("group", node), None) for node in range(3)]
    assert [keeper.filter(record) for record in records] == [True, False, False]
