"""Topics and partitions of a cluster: listing, making, and finding them by name without ever creating one by asking."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import aiokafka.errors as kafka
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest

from prela_stream.errors import TooLargeError, TransportError, UnknownTopicError
from prela_stream.transport.base import Record, TopicPartition, TopicSpec
from prela_stream.transport.kafka.admin.configs import HEADROOM_BYTES, READ, entries, read_spec
from prela_stream.transport.kafka.admin.requests import NotYetError, Wire, check
from prela_stream.transport.options import KafkaOptions

_TOPIC: Final = 2
"""What a topic is among the resources that have settings."""
_REPLICATION: Final = 3
_AT_ONCE: Final = 200
_MAKE: Final = "make it with `prela-stream topics create`"


class Catalog:
    """What is known of the topics. What was found is remembered; what was not is asked for again."""

    def __init__(self, wire: Wire, options: KafkaOptions) -> None:
        self._wire = wire
        self._options = options
        self._known: dict[str, TopicSpec] = {}

    async def topics(self, names: Sequence[str] | None) -> dict[str, TopicSpec]:
        """Those of these that there are, or every topic that this client may see, Kafka's own left out. Raises TransportError."""
        if names is None:
            return await self._describe(None)
        return await self._look(names)

    async def specs(self, names: Iterable[str], *, anew: bool = False) -> dict[str, TopicSpec]:
        """These topics. Raises UnknownTopicError, TransportError."""
        names = list(names)
        wanted = [name for name in names if anew or name not in self._known]
        if wanted:
            await self._look(wanted)
        for name in names:
            if name not in self._known:
                raise unknown(name, None, {})
        return {name: self._known[name] for name in names}

    async def _look(self, names: Sequence[str]) -> dict[str, TopicSpec]:
        found = await self._describe(list(names)) if names else {}  # where nobody answers, what was known stays known
        self.forget(names)
        self._known |= found
        return found

    async def place(self, name: TopicPartition) -> TopicSpec:
        """The topic of a partition that there is. Raises UnknownTopicError, TransportError."""
        found = (await self.specs([name.topic]))[name.topic]
        if not 0 <= name.partition < found.partitions:
            found = (await self.specs([name.topic], anew=True))[name.topic]
            if not 0 <= name.partition < found.partitions:
                raise unknown(name.topic, name.partition, {name.topic: found})
        return found

    async def check(self, to: TopicPartition, records: Sequence[Record]) -> None:
        """Raise TransportError (UnknownTopicError, TooLargeError) if one of these cannot go there."""
        found = await self.place(to)
        if any(record.value is not None and len(record.value) > found.max_record_bytes for record in records):
            found = (await self.specs([to.topic], anew=True))[to.topic]  # the limit may have been raised
        for record in records:
            if record.value is not None and len(record.value) > found.max_record_bytes:
                msg = (
                    f"a Record of {len(record.value):,} bytes is too large for topic {to.topic}, which takes values of at most "
                    f"{found.max_record_bytes:,} bytes (max.message.bytes less {HEADROOM_BYTES:,}); nothing was written"
                )
                raise TooLargeError(msg)
            if record.key is None and found.cleanup == "compact":
                msg = f"a Record without a key cannot go to topic {to.topic}, which is compacted by key; nothing was written"
                raise TransportError(msg)

    def forget(self, names: Iterable[str]) -> None:
        """Ask again for these when they are next needed: something was wrong with one of them."""
        for name in names:
            self._known.pop(name, None)

    async def is_there(self, name: str) -> bool:
        """Whether a topic that was there still is, as far as can be found out."""
        try:
            await self.specs([name], anew=True)
        except UnknownTopicError:
            return False
        except TransportError:
            return True
        return True

    async def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Make those that are missing; return the names of those that this call made. Raises TransportError."""
        for one in specs:
            if one.partitions < 1:
                msg = f"topic {one.name}: expected at least 1 partition, got {one.partitions}"
                raise TransportError(msg)
        if not specs:
            return []
        made: set[str] = set()

        async def attempt() -> None:
            there = await self._wire.metadata([one.name for one in specs])
            missing = [one for one in specs if one.name not in {found[1] for found in there.topics if not found[0]}]
            if missing:
                await self._create(missing, len(_brokers(there)), made)

        await self._wire.repeat("making topics", attempt)
        # All of them stand: a topic that was just made is not at once known to every broker.
        await self._wire.repeat("waiting for new topics", lambda: self._standing([one.name for one in specs]))
        return [one.name for one in specs if one.name in made]

    async def _create(self, missing: Sequence[TopicSpec], brokers: int, made: set[str]) -> None:
        replication = self._options.replication or min(_REPLICATION, brokers)
        wanted: list[Any] = [
            (one.name, one.partitions, replication, [], list(entries(one, replication).items())) for one in missing
        ]
        request = CreateTopicsRequest(wanted, self._options.request_timeout_ms, validate_only=False)
        answer = await self._wire.ask(request, node=self._wire.controller())
        for name, code, *text in answer.topic_errors:
            kind = kafka.for_code(code)
            if kind is kafka.NoError:
                made.add(name)
            elif kind is not kafka.TopicAlreadyExistsError:
                if kind.retriable:
                    raise kind
                said = f"{kind.__name__}: {text[0] if text and text[0] else kind.description}"
                msg = f"topic {name} with {replication} replicas could not be made: {said}"
                raise TransportError(msg)

    async def _standing(self, names: list[str]) -> None:
        """Raise KafkaError unless every broker that can be asked knows them, and who leads their partitions."""
        cluster = await self._wire.metadata(names)
        for broker in _brokers(cluster):
            try:
                answer = await self._wire.metadata(names, node=broker[0])
            except (kafka.NodeNotReadyError, kafka.KafkaConnectionError):
                continue  # it is down, and others cannot ask it either
            for code, _, _, partitions in answer.topics:
                check(code)
                for partition_code, *_ in partitions:
                    check(partition_code)

    async def _describe(self, names: list[str] | None) -> dict[str, TopicSpec]:
        async def attempt() -> dict[str, TopicSpec]:
            answer = await self._wire.metadata(names)
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
            result: dict[str, TopicSpec] = await self._wire.repeat("describing topics", attempt)
        except KafkaError as error:
            msg = f"kafka: the topics {'' if names is None else ', '.join(names)} cannot be described: {error}"
            if isinstance(error, kafka.TopicAuthorizationFailedError):
                msg += "; allow this client to use them, `prela-stream doctor` shows which rights are missing"
            raise TransportError(msg) from error
        return result

    async def _settings(self, names: list[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(names), _AT_ONCE):
            part: list[Any] = [(_TOPIC, name, list(READ)) for name in names[start : start + _AT_ONCE]]
            answer = await self._wire.ask(DescribeConfigsRequest(part))
            for code, _, _, name, values in answer.resources:
                if code == 0:
                    found[name] = {entry[0]: entry[1] for entry in values}
        return found


def _brokers(answer: Any) -> Sequence[Any]:
    """Those that a broker counts as alive; raises NotYetError if there is none: one that stalled is no member for a moment."""
    if not answer.brokers:
        msg = "the cluster has no broker that is alive"
        raise NotYetError(msg)
    brokers: Sequence[Any] = answer.brokers
    return brokers


def unknown(topic: str, partition: int | None, known: dict[str, TopicSpec]) -> UnknownTopicError:
    """The error that says what there is instead."""
    if topic in known and partition is not None:
        msg = f"topic {topic} has partitions 0 to {known[topic].partitions - 1}, there is no partition {partition}"
    else:
        msg = f"there is no topic {topic!r}, or this client may not see it; {_MAKE}"
    return UnknownTopicError(msg)
