"""One connection a transport for its questions to the cluster: topics, settings, offsets, groups.

aiokafka's clients hide how long they try and whether a question ever got an answer, and ask in ways that create topics. What is
not producing, fetching or being a member of a group is therefore asked here, with its requests but our deadlines.
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

_BACKOFF_S: Final = 0.1
_SOON_S: Final = 0.01


class NotYetError(KafkaError):
    """The answer is one that will soon be another."""

    retriable = True


class Wire:
    """Questions to the brokers, each bounded by `request_timeout_ms`. Connects with the first; any number of tasks may ask."""

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
        """What a broker says about these topics, or about all. Never creates one. Raises KafkaError, TransportError."""
        return await self.ask(MetadataRequest(topics, allow_auto_topic_creation=False), node=node)

    async def coordinator(self, group: str) -> int:
        """The broker that keeps a group. Raises KafkaError, TransportError."""
        answer = await self.ask(FindCoordinatorRequest(group, 0))
        check(answer.error_code)
        return int(answer.coordinator_id)

    def controller(self) -> int | None:
        """The broker that creates topics, as of the last answer about the cluster."""
        broker = self._client.cluster.controller if self._client is not None else None
        return None if broker is None else broker.nodeId

    async def repeat(self, what: str, attempt: Callable[[], Any]) -> Any:
        """Repeat `attempt` while it fails in a way that passes, up to the deadline.

        Raises:
            TransportError: it did not work. Of a question that changes nothing, also if no answer came.
            KafkaError: it failed in a way that does not pass.
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
                    await self._refresh()
                    await anyio.sleep(_BACKOFF_S)
        msg = (
            f"kafka: {what} did not work within {self.options.request_timeout_ms:,} ms: {last}. Look whether the brokers at "
            f"{', '.join(self.options.bootstrap)} are well; trying again is safe"
        )
        raise TransportError(msg)

    async def _refresh(self) -> None:
        """Who is in the cluster may have changed. If nobody that we know answers any more, begin with the bootstrap servers."""
        client = self._client
        if client is not None and not await client.force_metadata_update() and client is self._client:
            self._client = None
            await _close(client)

    async def _open(self) -> Any:
        async with self._opening:
            if self._closed:
                msg = "this Kafka transport is closed"
                raise TransportError(msg)
            if self._client is None:
                client: Any = AIOKafkaClient(**connection(self.options))
                try:
                    await connected(self.options, "questions about topics and offsets", client.bootstrap)
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
    """Raise the KafkaError that this code stands for, if any."""
    kind = for_code(code)
    if kind is not NoError:
        raise kind


def by_topic(rows: Mapping[TopicPartition, Any]) -> list[tuple[str, list[Any]]]:
    """Rows as requests want them."""
    found: dict[str, list[Any]] = {}
    for place, row in rows.items():
        found.setdefault(place.topic, []).append(row)
    return list(found.items())
