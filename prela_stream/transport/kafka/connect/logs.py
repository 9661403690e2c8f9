"""Limits aiokafka's log to what a reader can use: one line for a broker that is down, not ten per second.

Its clients retry without end and log an error for each attempt. A message that repeats is logged once a minute. Other
loggers, and how the application handles aiokafka's, do not change.
"""

import logging
from time import monotonic
from typing import Final

REPEAT_S: Final = 60.0
"""How long a message is not logged again, whatever its arguments are."""
_REPORTED_ELSEWHERE: Final = (
    # connecting: the TransportError has the reason
    *('Unable connect to "', 'Unable to request metadata from "'),
    # a topic that does not exist: the consumer logs it and waits
    *("Topic %s not found in cluster metadata", "No partition metadata for topic "),
    "Unexpected error in sender routine",  # a send or commit: its outcome and the reason are logged
    "Heartbeat failed for group %s because it is rebalancing",  # a member joined or left: the new assignment is logged
)
"""Messages whose cause this package raises or logs itself, or that report no failure."""
_LOGIN: Final = "SaslAuthenticate"
"""Requests of this name contain passwords and tokens."""
_MODULES: Final = (
    *("conn", "cluster", "consumer.consumer", "consumer.fetcher", "consumer.group_coordinator"),
    *("consumer.subscription_state", "producer.producer", "producer.sender", "producer.message_accumulator"),
    "coordinator.assignors.sticky.sticky_assignor",
)


class OnceAMinute(logging.Filter):
    """Passes a warning or error of one text once a minute, and below a warning everything without a secret."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is logged."""
        if record.levelno < logging.WARNING:
            arguments = record.args if isinstance(record.args, tuple) else ()
            return not any(type(argument).__name__.startswith(_LOGIN) for argument in arguments)
        text, now = str(record.msg), monotonic()
        if text.startswith(_REPORTED_ELSEWHERE):
            return False
        if now - self._logged.get(text, -REPEAT_S) < REPEAT_S:
            return False
        self._logged[text] = now
        return True


_filter = OnceAMinute()


def limit_logs() -> None:
    """Add the filter to the loggers of aiokafka. A second call changes nothing."""
    # each by its name: a filter of a logger is not applied to records of its children
    for name in ("aiokafka", *(f"aiokafka.{module}" for module in _MODULES)):
        logging.getLogger(name).addFilter(_filter)
