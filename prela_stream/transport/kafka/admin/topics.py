"""Topics and partitions of a cluster: listing and creating them, and describing them by name without creating them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import aiokafka.errors as kafka
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest

from prela_stream.errors import TransportError, UnknownTopicError
from prela_stream.transport.base import Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka.admin.configs import HEADROOM_BYTES, READ, entries, read_spec
from prela_stream.transport.kafka.admin.connection import AdminConnection, NotYetError, check
from prela_stream.transport.options import KafkaOptions
from prela_stream.transport.refusals import check_record, unknown_topic

_TOPIC: Final = 2
"""The resource type of a topic in DescribeConfigs."""
_REPLICATION: Final = 3
_AT_ONCE: Final = 200


class Topics:
    """Describes and creates topics. It remembers topics that exist, and asks again for others."""

    def __init__(self, admin: AdminConnection, options: KafkaOptions) -> None:
        self._admin = admin
        self._options = options
        self._known: dict[str, TopicSpec] = {}

    async def topics(self, names: Sequence[str] | None) -> dict[str, TopicSpec]:
        """Those of `names` that exist, or every topic that this client may see except internal ones. Raises TransportError."""
        if names is None:
            return await self._describe(None)
        return await self._update(names)

    async def specs(self, names: Iterable[str], *, refresh: bool = False) -> dict[str, TopicSpec]:
        """These topics. Raises UnknownTopicError, TransportError."""
        names = list(names)
        wanted = [name for name in names if refresh or name not in self._known]
        if wanted:
            await self._update(wanted)
        for name in names:
            if name not in self._known:
                raise unknown_topic(name, None, {})
        return {name: self._known[name] for name in names}

    async def _update(self, names: Sequence[str]) -> dict[str, TopicSpec]:
        found = await self._describe(list(names)) if names else {}  # if no broker answers, the former result stays
        self.forget(names)
        self._known |= found
        return found

    async def spec_of(self, partition: TopicPartition) -> TopicSpec:
        """The topic of a partition. Raises UnknownTopicError, TransportError."""
        topic, number = partition.topic, partition.partition
        found = (await self.specs([topic]))[topic]
        if not 0 <= number < found.partitions:
            found = (await self.specs([topic], refresh=True))[topic]
            if not 0 <= number < found.partitions:
                raise unknown_topic(topic, number, {topic: found})
        return found

    async def check(self, to: TopicPartition, records: Sequence[Record]) -> None:
        """Raise TransportError (UnknownTopicError, TooLargeError) if the topic cannot accept one of these records."""
        found = await self.spec_of(to)
        if any(record.value is not None and len(record.value) > found.max_record_bytes for record in records):
            found = (await self.specs([to.topic], refresh=True))[to.topic]  # the limit may have been raised
        for record in records:
            check_record(found, record, f"max.message.bytes less {HEADROOM_BYTES:,}")

    def forget(self, names: Iterable[str]) -> None:
        """Describe these again when they are next needed, because a request about one of them failed."""
        for name in names:
            self._known.pop(name, None)

    async def exists(self, name: str) -> bool:
        """Whether a topic still exists; True if no broker answers."""
        try:
            await self.specs([name], refresh=True)
        except UnknownTopicError:
            return False
        except TransportError:
            return True
        return True

    async def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create those that are missing; return the names of those that this call created. Raises TransportError."""
        for one in specs:
            if one.partitions < 1:
                msg = f"topic {one.name}: expected at least 1 partition, got {one.partitions}"
                raise TransportError(msg)
        if not specs:
            return []
        created: set[str] = set()

        async def attempt() -> None:
            cluster = await self._admin.metadata([one.name for one in specs])
            missing = [one for one in specs if one.name not in {found[1] for found in cluster.topics if not found[0]}]
            if missing:
                await self._create(missing, len(_brokers(cluster)), created)

        await self._admin.repeat("creating topics", attempt)
        # A new topic is not at once known to every broker.
        await self._admin.repeat("waiting for new topics", lambda: self._known_everywhere([one.name for one in specs]))
        return [one.name for one in specs if one.name in created]

    async def _create(self, missing: Sequence[TopicSpec], brokers: int, created: set[str]) -> None:
        replication = self._options.replication or min(_REPLICATION, brokers)
        wanted: list[Any] = [
            (one.name, one.partitions, replication, [], list(entries(one, replication).items())) for one in missing
        ]
        request = CreateTopicsRequest(wanted, self._options.request_timeout_ms, validate_only=False)
        answer = await self._admin.ask(request, node=self._admin.controller())
        for name, code, *text in answer.topic_errors:
            kind = kafka.for_code(code)
            if kind is kafka.NoError:
                created.add(name)
            elif kind is not kafka.TopicAlreadyExistsError:
                if kind.retriable:
                    raise kind
                reason = f"{kind.__name__}: {text[0] if text and text[0] else kind.description}"
                msg = f"topic {name} with {replication} replicas could not be created: {reason}"
                raise TransportError(msg)

    async def _known_everywhere(self, names: list[str]) -> None:
        """Raise KafkaError unless every broker that answers knows these topics and the leaders of their partitions."""
        cluster = await self._admin.metadata(names)
        for broker in _brokers(cluster):
            try:
                answer = await self._admin.metadata(names, node=broker[0])
            except (kafka.NodeNotReadyError, kafka.KafkaConnectionError):
                continue  # it is down, so no client can ask it
            for code, _, _, partitions in answer.topics:
                check(code)
                for partition_code, *_ in partitions:
                    check(partition_code)

    async def _describe(self, names: list[str] | None) -> dict[str, TopicSpec]:
        async def attempt() -> dict[str, TopicSpec]:
            answer = await self._admin.metadata(names)
            found: dict[str, tuple[int, int]] = {}
            for code, name, internal, partitions in answer.topics:
                kind = kafka.for_code(code)
                if kind in (kafka.UnknownTopicOrPartitionError, kafka.InvalidTopicError) or (internal and not names):
                    continue
                if kind is not kafka.LeaderNotAvailableError:
                    check(code)
                replicas = min((len(partition[3]) for partition in partitions), default=0)
                found[name] = (len(partitions), replicas)
            settings = await self._settings(list(found))
            return {name: read_spec(name, *found[name], settings.get(name), self._options) for name in found}

        try:
            result: dict[str, TopicSpec] = await self._admin.repeat("describing topics", attempt)
        except KafkaError as error:
            msg = f"kafka: the topics {'' if names is None else ', '.join(names)} cannot be described: {error}"
            if isinstance(error, kafka.TopicAuthorizationFailedError):
                msg += "; allow this client to use them; `prela-stream doctor` reports the missing permissions"
            raise TransportError(msg) from error
        return result

    async def _settings(self, names: list[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(names), _AT_ONCE):
            part: list[Any] = [(_TOPIC, name, list(READ)) for name in names[start : start + _AT_ONCE]]
            answer = await self._admin.ask(DescribeConfigsRequest(part))
            for code, _, _, name, values in answer.resources:
                if code == 0:
                    found[name] = {entry[0]: entry[1] for entry in values}
        return found


def _brokers(answer: Any) -> Sequence[Any]:
    """The brokers that are alive; raises NotYetError if there is none: a broker that stalls leaves the list for a moment."""
    if not answer.brokers:
        msg = "the cluster lists no broker that is alive"
        raise NotYetError(msg)
    brokers: Sequence[Any] = answer.brokers
    return brokers
