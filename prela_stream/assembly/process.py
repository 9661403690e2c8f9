"""A process that sends items, as the Python core knows it."""

from prela_stream.assembly.decoding import cached_resource


class Process:
    """A process with items in open traces, identified by its resource bytes, of which it holds the only copy."""

    __slots__ = ("heartbeats", "lost_offset", "resource", "traces")

    def __init__(self, resource: bytes) -> None:
        self.resource = resource
        self.heartbeats = cached_resource(resource).heartbeat_ms > 0
        self.lost_offset = -1
        """Offset of its last LOST item without a trace id."""
        self.traces = 0
        """Number of open traces with items from it."""
