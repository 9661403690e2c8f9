"""Keeps aiokafka's own log to what a reader can use: a broker that is away is said once, not ten times a second.

Its clients repeat what failed until it works, without end, and log an error for each attempt. What they have to say twice is
said once a minute. Other loggers, and how the application handles these, stay as they are.
"""

import logging
from time import monotonic
from typing import Final

REPEAT_S: Final = 60.0
"""A message is not said again for so long, whatever its arguments are."""
_SAID_BY_US: Final = (
    # a start: with a TransportError that holds the reason
    *('Unable connect to "', 'Unable to request metadata from "'),
    "Unexpected error in sender routine",  # a send or commit: with its outcome, and why
    "Heartbeat failed for group %s because it is rebalancing",  # a member came or went: with what it took over
)
"""What ends in an error or a log line of ours, or is no failure at all."""
_LOGIN: Final = "SaslAuthenticate"
"""Requests of this name hold passwords and tokens."""
_MODULES: Final = (
    *("conn", "cluster", "consumer.consumer", "consumer.fetcher", "consumer.group_coordinator"),
    *("consumer.subscription_state", "producer.producer", "producer.sender", "producer.message_accumulator"),
    "coordinator.assignors.sticky.sticky_assignor",
)


class OnceAMinute(logging.Filter):
    """Lets a warning or error of one text pass once a minute, and below a warning everything that holds no secret."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is to be said."""
        if record.levelno < logging.WARNING:
            arguments = record.args if isinstance(record.args, tuple) else ()
            return not any(type(argument).__name__.startswith(_LOGIN) for argument in arguments)
        text, now = str(record.msg), monotonic()
        if text.startswith(_SAID_BY_US):
            return False
        if now - self._said.get(text, -REPEAT_S) < REPEAT_S:
            return False
        self._said[text] = now
        return True


_filter = OnceAMinute()


def tame() -> None:
    """Put the filter on the loggers of aiokafka. Doing so again changes nothing."""
    # each by its name: a filter is not asked for what comes from below
    for name in ("aiokafka", *(f"aiokafka.{module}" for module in _MODULES)):
        logging.getLogger(name).addFilter(_filter)
