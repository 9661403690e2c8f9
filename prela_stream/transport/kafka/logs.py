"""Keeps aiokafka's own log to what a reader can use: a broker that is away is said once, not ten times a second.

Its clients repeat what failed until it works, without end, and log an error for each attempt. What they have to say twice is
said once a minute. Other loggers, and how the application handles these, stay as they are.
"""

import logging
from time import monotonic
from typing import Final

REPEAT_S: Final = 60.0
"""A message is not said again for so long, whatever its arguments are."""
_SAID_BY_US: Final = "Unable connect to"
"""How a client's start fails: with a TransportError of ours that holds the reason."""
_MODULES: Final = (
    *("client", "conn", "cluster", "consumer.consumer", "consumer.fetcher", "consumer.group_coordinator"),
    *("consumer.subscription_state", "producer.producer", "producer.sender", "producer.message_accumulator"),
)


class OnceAMinute(logging.Filter):
    """Lets a warning or error of one text pass once a minute, and everything below a warning always."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is to be said."""
        if record.levelno < logging.WARNING:
            return True
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
    for name in _MODULES:  # a filter of a logger is not asked for what comes from below it
        logging.getLogger(f"aiokafka.{name}").addFilter(_filter)
