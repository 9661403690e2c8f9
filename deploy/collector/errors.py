"""The error of a Collector that cannot be built or started."""


class CollectorMissingError(Exception):
    """No Collector is present and none can be built; the message has the reason."""
