"""Records that trickle in are fetched together; the first one after a pause, and a backlog, are fetched at once."""

from types import SimpleNamespace
from typing import Any

from prela_stream.transport.kafka.client.fetcher import Fetcher
from prela_stream.transport.options import KafkaOptions


def paced(**extra: Any) -> tuple[Fetcher, SimpleNamespace]:
    fetcher = Fetcher(KafkaOptions(consumer_extra=extra), None, lambda: None)
    aiokafka = SimpleNamespace(_fetch_min_bytes=1, _fetch_max_wait_ms=250)
    fetcher._kafka._closed = True  # it was never started
    fetcher._kafka = SimpleNamespace(_fetcher=aiokafka)
    return fetcher, aiokafka


async def test_a_fetch_after_few_records_waits_for_more() -> None:
    fetcher, aiokafka = paced()
    fetcher._pace_fetches(900)
    assert aiokafka._fetch_min_bytes > 10_000
    assert aiokafka._fetch_max_wait_ms <= 150  # a decision is later by this at most


async def test_a_fetch_after_none_or_many_is_answered_at_once() -> None:
    for found_bytes in (0, 1 << 20):
        fetcher, aiokafka = paced()
        fetcher._pace_fetches(900)
        fetcher._pace_fetches(found_bytes)
        assert aiokafka._fetch_min_bytes == 1


async def test_what_the_settings_fix_stays() -> None:
    fetcher, aiokafka = paced(fetch_min_bytes=7)
    fetcher._pace_fetches(900)
    assert (aiokafka._fetch_min_bytes, aiokafka._fetch_max_wait_ms) == (1, 250)
