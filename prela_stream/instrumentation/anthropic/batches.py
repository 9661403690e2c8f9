"""Maps the JSON of the Message Batches API to attributes. Pure.

A batch is no model call. Its generations run later on the server, and its results can be read many times and by any process.
So none of its spans has token attributes: the sums of a trace would count a batch once for each reading. The tokens of the
results are attributes of the batch. Prompts and answers of a batch are not recorded.
"""

from collections.abc import Mapping
from typing import Any, Final

from prela_stream.instrumentation.anthropic.messages import CreateMessage, usage_attributes
from prela_stream.instrumentation.anthropic.stream import failure_of
from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.instrumentation.outcome import UNREADABLE
from prela_stream.instrumentation.provider import Failure, StreamState, read_json
from prela_stream.model.span import SpanType

BATCH_ID: Final = "anthropic.message.batch.id"
"""The name that the tracer inside the client uses."""
REQUEST_COUNT: Final = "anthropic.message.batch.request_count"
STATUS: Final = "anthropic.message.batch.processing_status"
RESULTS: Final = "anthropic.message.batch.results."
"""Start of the names of four counts."""
USAGE: Final = "anthropic.message.batch.usage."
"""Start of the names of the sums over the succeeded results, which continue as those of `gen_ai.usage.`."""
PATH: Final = "/v1/messages/batches"
_KINDS: Final = ("succeeded", "errored", "canceled", "expired")
_SUMMED: Final = "gen_ai.usage."


class CreateBatch(CreateMessage):
    """`POST /v1/messages/batches`: as `Operation`."""

    name = "create_batch"
    span_type = SpanType.CUSTOM
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`. The client makes a list of an iterator before it sends it."""
        requests = body.get("requests") if isinstance(body, Mapping) else None
        return {REQUEST_COUNT: len(requests)} if isinstance(requests, list | tuple) else {}

    def request_content(self, body: object) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.request_content`."""
        return {}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.response_attributes`."""
        named = ((BATCH_ID, answer.get("id")), (STATUS, answer.get("processing_status")))
        return {name: value for name, value in named if isinstance(value, str)}


class BatchResults(CreateBatch):
    """`GET /v1/messages/batches/{id}/results`: as `Operation`.

    Args:
        batch_id: From the path.
    """

    name = "batch_results"

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id

    def request_attributes(self, body: object) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.request_attributes`."""
        return {BATCH_ID: self._batch_id}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.response_attributes`: of the answer of `ResultLines`."""
        return {name: value for name, value in answer.items() if name.startswith((RESULTS, USAGE))}

    def stream_state(self, *, content: bool) -> StreamState:  # noqa: ARG002 - the protocol
        """As `Operation.stream_state`."""
        return ResultLines()


class ResultLines:
    """As `StreamState`, for the results of a batch. It keeps numbers only."""

    last_event: str | None = None
    is_complete = False
    has_output = False

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._counts = dict.fromkeys(_KINDS, 0)
        self._usage: dict[str, int] = {}

    def add(self, event: StreamEvent) -> bool:
        """As `StreamState.add`."""
        found = read_json(event.data)
        if not isinstance(found, Mapping):
            self.failure = self.failure or UNREADABLE  # the client raises an exception for it, after the body was read
            return False
        self.failure = self.failure or failure_of(found)
        if self.failure is not None:
            return True
        result = found["result"]
        kind = result["type"]
        if kind not in self._counts:
            return False
        self._counts[kind] += 1
        if kind == "succeeded":
            for name, value in usage_attributes(result["message"]["usage"]).items():
                if name.startswith(_SUMMED) and isinstance(value, int):
                    own = USAGE + name.removeprefix(_SUMMED)
                    self._usage[own] = self._usage.get(own, 0) + value
        return True

    def answer(self) -> dict[str, Any]:
        """As `StreamState.answer`: the attributes. All counts are there, also those of no result."""
        return {**{RESULTS + kind: count for kind, count in self._counts.items()}, **self._usage}


def batch_id_of(path: str) -> str | None:
    """The id in the path, or the URL, of the results of a batch; None for any other path."""
    _, found, rest = path.rpartition(f"{PATH}/")
    batch_id, _, last = rest.partition("/")
    return batch_id if found and batch_id and last == "results" else None
