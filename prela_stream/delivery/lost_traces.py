"""The traces that lost items, until the workers have been warned that these traces are not whole."""


class LostTraces:
    """Traces for which a LOST item is still to be sent.

    Args:
        limit: Most traces that are remembered by id. If more lose items, every partition is warned instead.
    """

    __slots__ = ("_limit", "_traces", "everywhere")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._traces: dict[bytes, None] = {}
        self.everywhere: bool = False
        """Traces whose ids are not remembered lost items, so every partition is to be warned."""

    def __bool__(self) -> bool:
        return self.everywhere or bool(self._traces)

    def __len__(self) -> int:
        return len(self._traces)

    def __contains__(self, trace_id: bytes) -> bool:
        return trace_id in self._traces

    def add(self, trace_id: bytes | None) -> None:
        """Remember that this trace lost an item; None if its id is not known."""
        if trace_id is None:
            self.everywhere = True
        elif trace_id not in self._traces:
            if len(self._traces) < self._limit:
                self._traces[trace_id] = None
            else:
                self.everywhere = True

    def take(self, limit: int) -> list[bytes]:
        """Forget and return up to `limit` traces, the oldest first."""
        taken = list(self._traces)[:limit] if limit < len(self._traces) else list(self._traces)
        for trace_id in taken:
            del self._traces[trace_id]
        return taken
