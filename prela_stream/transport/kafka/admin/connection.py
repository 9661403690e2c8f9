"""The connection of a transport for requests about the cluster: topics, settings, offsets, groups.

aiokafka's clients retry for an unknown time, hide whether a request was ever answered, and create topics when they ask about
them. So everything but producing, fetching and group membership uses this connection: requests of aiokafka with our
deadlines.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaError, NoError, for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from prela_stream.errors import TransportError
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.kafka.connect.arguments import connection
from prela_stream.transport.kafka.connect.steps import connected
from prela_stream.transport.options import KafkaOptions
from prela_stream.transport.refusals import closed

_BACKOFF_S: Final = 0.1
_SOON_S: Final = 0.01


class NotYetError(KafkaError):
    """The answer is temporary: the same request will soon have another."""

    retriable = True


class AdminConnection:
    """Sends requests to the brokers, each bounded by `request_timeout_ms`. The first one connects; any task may use it."""

    def __init__(self, options: KafkaOptions) -> None:
        self.options = options
        self._client: Any = None
        self._opening = anyio.Lock()
        self._closed = False

    async def ask(self, request: Any, *, node: int | None = None) -> Any:
        """Send one request to a broker (to any, if `node` is None) and return its answer. Raises KafkaError, TransportError."""
        client = await self._open()
        if node is None:
            node = client.get_random_node()
        return await client.send(node, request, group=ConnectionGroup.DEFAULT)

    async def metadata(self, topics: list[str] | None, *, node: int | None = None) -> Any:
        """A broker's metadata of these topics, or of all. Never creates a topic. Raises KafkaError, TransportError."""
        return await self.ask(MetadataRequest(topics, allow_auto_topic_creation=False), node=node)

    async def coordinator(self, group: str) -> int:
        """The coordinator of a group. Raises KafkaError, TransportError."""
        answer = await self.ask(FindCoordinatorRequest(group, 0))
        check(answer.error_code)
        return int(answer.coordinator_id)

    def controller(self) -> int | None:
        """The controller of the cluster, as of the last metadata; it creates topics."""
        broker = self._client.cluster.controller if self._client is not None else None
        return None if broker is None else broker.nodeId

    async def repeat(self, what: str, attempt: Callable[[], Any]) -> Any:
        """Repeat `attempt` after retriable errors, until `request_timeout_ms` has passed.

        Raises:
            TransportError: no attempt succeeded. For a request that changes nothing, also if no broker answered.
            KafkaError: an error that is not retriable.
        """
        last = "no answer came"
        with anyio.move_on_after(self.options.request_timeout_ms / 1000):
            while True:
                try:
                    return await attempt()
                except NotYetError as error:
                    last = str(error)
                    await anyio.sleep(_SOON_S)
                except KafkaError as error:
                    if not error.retriable:
                        raise
                    last = str(error)
                    await self.refresh()
                    await anyio.sleep(_BACKOFF_S)
        msg = (
            f"kafka: {what} did not succeed within {self.options.request_timeout_ms:,} ms (kafka.request_timeout_ms): {last}. "
            f"Check that the brokers at {', '.join(self.options.bootstrap)} run; retrying is safe"
        )
        raise TransportError(msg)

    async def refresh(self) -> None:
        """Update the list of brokers. If none of them answers, connect again through the bootstrap servers."""
        client = self._client
        if client is not None and not await client.force_metadata_update() and client is self._client:
            self._client = None
            await _close(client)

    async def _open(self) -> Any:
        async with self._opening:
            if self._closed:
                raise closed("Kafka transport")
            if self._client is None:
                client: Any = AIOKafkaClient(**connection(self.options))
                try:
                    await connected(self.options, "requests about topics and offsets", client.bootstrap)
                except BaseException:
                    await _close(client)
                    raise
                self._client = client
            return self._client

    async def aclose(self) -> None:
        """Close the connection."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await _close(client)


async def _close(client: Any) -> None:
    with anyio.CancelScope(shield=True):
        await client.close()


def check(code: int) -> None:
    """Raise the KafkaError of this error code, if it is one."""
    kind = for_code(code)
    if kind is not NoError:
        raise kind


def by_topic(rows: Mapping[TopicPartition, Any]) -> list[tuple[str, list[Any]]]:
    """Rows grouped by topic, as requests need them."""
    found: dict[str, list[Any]] = {}
    for partition, row in rows.items():
        found.setdefault(partition.topic, []).append(row)
    return list(found.items())
