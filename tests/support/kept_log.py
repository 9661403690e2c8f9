"""A log that only one test uses, with kept traces in it, on either transport."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

import prela_stream as prela
from prela_stream.app import ready_transport
from prela_stream.app.adapters import make_topics
from prela_stream.codec.sampled import KeptFragment, encode_kept
from prela_stream.config import Settings, load_settings
from prela_stream.transport.base import Committed, TopicPartition, Transport
from prela_stream.worker.service import Worker
from tests.support.workers import DEADLINE, WHOLE_ONLY, make_worker, send

TRANSPORTS = ["local", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])]


class KeptLog(msgspec.Struct, frozen=True, kw_only=True):
    """The log, and the settings that name it."""

    settings: Settings
    transport: Transport

    @property
    def sampled(self) -> str:
        return self.settings.topics.sampled

    @property
    def group(self) -> str:
        """A consumer group that no other test has."""
        return f"{self.settings.topics.prefix}.readers"

    def worker(self) -> Worker:
        """A worker, of a group that no other test has, that keeps every complete trace."""
        group = f"{self.settings.topics.prefix}.workers"
        return make_worker(self.transport, topics=self.settings.topics, assembly=WHOLE_ONLY, group=group)

    async def kept(self, *fragments: KeptFragment, partition: int = 0) -> None:
        """Append records of `sampled`."""
        await send(self.transport, *map(encode_kept, fragments), to=TopicPartition(self.sampled, partition))

    async def committed(self, group: str, partition: int = 0) -> Committed | None:
        """What a consumer group has committed."""
        return await self.transport.committed(group, TopicPartition(self.sampled, partition))

    async def rest(self, group: str | None) -> list[str]:
        """Ids of the traces that a new member receives until its loop ends; it commits all of them."""
        with anyio.fail_after(DEADLINE):
            async with prela.kept_traces(group, settings=self.settings, follow=False) as traces:
                found = [trace.trace_id async for trace in traces]
                if group is not None:
                    await traces.commit()
        return found


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[KeptLog]:
    """The log that these settings name, with its topics."""
    async with ready_transport(settings) as transport:
        await make_topics(settings, transport)
        yield KeptLog(settings=settings, transport=transport)


OpenLog = Callable[..., AbstractAsyncContextManager[KeptLog]]


@pytest.fixture(params=TRANSPORTS)
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> OpenLog:
    """Opens a log: `partitions` of `sampled`, and the session timeout of its groups."""

    def open_it(*, partitions: int = 2, session_timeout_ms: int) -> AbstractAsyncContextManager[KeptLog]:
        topics: dict[str, object] = {
            "partitions": partitions,
            "sampled_partitions": partitions,
            "max_record_bytes": 10_000,
        }
        common = {"topics": topics, "pipeline": {"shutdown_timeout_s": DEADLINE}}
        if request.param == "local":
            local = {"path": str(tmp_path / "log.db"), "session_timeout_ms": session_timeout_ms}
            return opened(load_settings(env={}, overrides={**common, "local": local}))
        topics["prefix"] = request.getfixturevalue("kafka_prefix")
        timeout_ms = max(session_timeout_ms, 6_000)  # brokers accept no less
        kafka = {"bootstrap": [request.getfixturevalue("kafka")], "session_timeout_ms": timeout_ms}
        return opened(load_settings(env={}, overrides={**common, "transport": "kafka", "kafka": kafka}))

    return open_it
