"""Which messages of aiokafka are logged: not those that this package reports itself; others once a minute."""

import inspect
import logging

import pytest
from aiokafka.consumer import group_coordinator

from prela_stream.transport.kafka.connect.logs import OnceAMinute, limit_logs

REBALANCING = "Heartbeat failed for group %s because it is rebalancing"
AWAY = "Heartbeat failed for group %s: coordinator (node %s) is either not started or not valid"
LOGGER = "aiokafka.consumer.group_coordinator"


def test_a_member_that_joins_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert f'"{REBALANCING}"' in inspect.getsource(group_coordinator), "aiokafka has another message now"
    limit_logs()
    log = logging.getLogger(LOGGER)
    log.warning(REBALANCING, "prela.sampler")
    assert [record.getMessage() for record in caplog.records if record.name == LOGGER] == []


def test_what_is_repeated_is_said_once_a_minute() -> None:
    keeper = OnceAMinute()
    records = [logging.LogRecord(LOGGER, logging.WARNING, "", 0, AWAY, ("group", node), None) for node in range(3)]
    assert [keeper.filter(record) for record in records] == [True, False, False]
