"""What an instrumentor has to know about the API of a model provider: how its JSON maps to attributes.

`llm_call.ModelCall` records a call with the help of these protocols. An instrumentor of another library implements them and
nothing else: it opens no span, reads no stream and catches no error.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.model.span import SpanType


class Failure(NamedTuple):
    """An error that the provider reports inside an answer, although the HTTP status is 200."""

    kind: str
    """Its low-cardinality type, for `error.type`."""
    message: str


class StreamState(Protocol):
    """What the events of one streamed answer add up to."""

    last_event: str | None
    """Name of the event that completes an answer, for the message of one that was cut. None if the answer is JSON Lines."""
    is_complete: bool
    """This event was received."""
    has_output: bool
    """A part of the answer was received; the first one gives `gen_ai.response.time_to_first_chunk`."""
    failure: Failure | None
    """The error that the stream reported."""

    def add(self, event: StreamEvent) -> bool:
        """Take the next event. Returns False if it could not be understood.

        May raise LookupError, TypeError, ValueError or AttributeError for an event of an unexpected shape; this counts as not
        understood. An event that the library itself ignores, such as a heartbeat, is understood.
        """
        ...

    def answer(self) -> dict[str, Any]:
        """The answer so far, in the shape of an answer that is not streamed; empty before the first part."""
        ...


class Operation(Protocol):
    """One kind of request of an API. All methods take JSON data of any shape and return the attributes that they find."""

    name: str
    """Start of the span's name, such as `chat`; the model follows."""
    span_type: SpanType
    """LLM if the request generates something. Sums of tokens are over LLM spans only."""

    price_flavor: str | None
    """The part of the provider's API as the price list of `genai-prices` names it; None if it costs nothing or has no price."""

    def request_attributes(self, body: object) -> dict[str, Any]:
        """Model and parameters, without content. Must not iterate over values: `body` may hold one-shot iterators."""
        ...

    def request_content(self, body: object) -> dict[str, Any]:
        """Prompts and tool definitions, as a copy. Called only if content is captured."""
        ...

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        """Ids, model, finish reason and usage; with `content` also the answer itself.

        Absent fields give no attributes. An empty result means that the answer was not understood.
        """
        ...

    def response_failure(self, answer: Mapping[str, Any]) -> Failure | None:
        """The error that this JSON document reports instead of an answer."""
        ...

    def stream_state(self, *, content: bool) -> StreamState:
        """A new state for a streamed answer. Without `content` it must keep no part of the answer's text."""
        ...


class Provider(Protocol):
    """One API with the names that its requests, responses and client objects use."""

    module: str
    """The top-level module of the library, to recognise its frames in a traceback."""
    request_id: tuple[str, str]
    """The response header with the id of the request, and the attribute for it."""

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation of a request; None if it is not traced. `path` has no query."""
        ...

    def client_attributes(self, client: Any) -> dict[str, Any]:
        """What the client object reports about itself: at least `gen_ai.provider.name`."""
        ...


def read_json(data: bytes) -> Any:
    """The value of a JSON document as client libraries read it; None if it is none."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        pass
    try:
        return json.loads(data)  # slower, and accepts NaN and halves of surrogate pairs, as the libraries do
    except ValueError:
        return None
