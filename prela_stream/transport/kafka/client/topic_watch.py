"""Notices for a consumer that its topics were deleted, or deleted and created again.

aiokafka does not notice it in every case: after a deletion it asks for the topics again only every five minutes, and if it
has not noticed the deletion, it continues at the old position in the new topic.
"""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Final

import anyio
from aiokafka.errors import KafkaError

from prela_stream import telemetry
from prela_stream.errors import TransportError
from prela_stream.transport.kafka.admin.connection import AdminConnection
from prela_stream.transport.kafka.admin.topic_ids import topic_ids

logger = logging.getLogger("prela_stream.transport.kafka")

EVERY_S: Final = 2.0
"""How often the topics are checked."""
CUT_OFF_S: Final = 3.0
"""How long a consumer may have no connection while brokers answer these checks, before it connects again."""
_PATIENCE_S: Final = 1.0
"""How long a check may take. If no broker answers, the next one tries again."""


class TopicWatch:
    """Checks the topics of one consumer."""

    def __init__(self, admin: AdminConnection, topics: Sequence[str]) -> None:
        self._admin = admin
        self._topics = topics
        self._ids: dict[str, str] = {}
        self._due_s = 0.0
        self._requests = 0
        self._answered = False
        self._cut_off_since_s: float | None = None
        self.missing: frozenset[str] = frozenset()
        """The topics that did not exist at the last check."""

    def is_cut_off(self, connected: bool) -> bool:
        """Whether the consumer has had no connection for a while although brokers answered the last checks.

        aiokafka knows only the addresses that brokers had when it last reached one, and never uses the bootstrap servers again.
        """
        if connected or not self._answered:
            self._cut_off_since_s = None
            return False
        now_s = monotonic()
        if self._cut_off_since_s is None:
            self._cut_off_since_s = now_s
        if now_s - self._cut_off_since_s < CUT_OFF_S:
            return False
        self._cut_off_since_s = None
        return True

    async def recreated(self, now_s: float, metadata_requests: int) -> frozenset[str]:
        """The topics that were created again since the last check; empty if no check is due or no broker answers.

        A check is due every two seconds, and after each metadata request of aiokafka, because it sends one if a fetch fails:
        a new topic may be long enough for the old position when it is fetched the next time.
        """
        if now_s < self._due_s and metadata_requests == self._requests:
            return frozenset()
        self._due_s, self._requests = now_s + EVERY_S, metadata_requests
        self._answered = False
        ids: dict[str, str] | None = None
        with anyio.move_on_after(_PATIENCE_S):
            try:
                ids = await topic_ids(self._admin, self._topics)
            except KafkaError:
                await self._admin.refresh()  # through the bootstrap servers, if no known broker answers
                return frozenset()
            except TransportError:
                return frozenset()
        if ids is None:
            return frozenset()
        self._answered = True
        missing = frozenset(self._topics) - ids.keys()
        found = {topic for topic, id_ in ids.items() if topic in self.missing or self._ids.get(topic, id_) != id_}
        if lost := sorted(missing - self.missing):
            logger.warning("topics %s do not exist any more; waiting until they are created again", ", ".join(lost))
        if found:
            telemetry.KAFKA_TOPICS_RECREATED.add(len(found))
            logger.warning(
                "topics %s were deleted and created again; reading the new ones. Records that were only in the former topics "
                "are lost",
                ", ".join(sorted(found)),
            )
        self.missing = missing
        self._ids |= ids
        return frozenset(found)
