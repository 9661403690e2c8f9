"""Attributes and events of the GenAI conventions as arguments: models, tools, agents, retrieval.

Names and meanings are in `model.semconv`. Arguments that are None are not set.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from prela_stream.model import semconv
from prela_stream.model.span import SpanStatus


class TypedSetters:
    """Setters of a span beside `set_attribute` and `add_event`. They have no effect after its end and never raise."""

    __slots__ = ()

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several attributes at once."""
        raise NotImplementedError

    def set_status(self, status: SpanStatus | str, message: str | None = None) -> None:
        """Set the result of the work."""
        raise NotImplementedError

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: datetime | int | None = None
    ) -> None:
        """Add an event."""
        raise NotImplementedError

    def set_llm(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        max_tokens: int | None = None,
        stop_sequences: Sequence[str] | None = None,
        stream: bool | None = None,
        response_model: str | None = None,
        response_id: str | None = None,
        finish_reason: str | Sequence[str] | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        time_to_first_token: float | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Set the request and response attributes of a model call.

        Args:
            provider: The provider of the model: `anthropic`, `openai`, ….
            model: The requested model.
            temperature: A parameter of the request.
            top_p: A parameter of the request.
            top_k: A parameter of the request.
            max_tokens: A parameter of the request.
            stop_sequences: A parameter of the request.
            stream: Whether the response was streamed.
            response_model: The model that produced the response.
            response_id: The provider's id of the response.
            finish_reason: Why the response ended; a sequence if there were several responses.
            input_tokens: All input tokens, cached ones included.
            output_tokens: All output tokens, reasoning included.
            cache_read_tokens: The part of `input_tokens` that was read from a cache.
            cache_write_tokens: The part of `input_tokens` that was written to a cache.
            reasoning_tokens: The part of `output_tokens` that was reasoning.
            time_to_first_token: Seconds.
            cost_usd: US dollars.
        """
        reasons = [finish_reason] if isinstance(finish_reason, str) else finish_reason
        self.set_attributes(
            given(
                {
                    semconv.PROVIDER_NAME: provider,
                    semconv.REQUEST_MODEL: model,
                    semconv.REQUEST_TEMPERATURE: temperature,
                    semconv.REQUEST_TOP_P: top_p,
                    semconv.REQUEST_TOP_K: top_k,
                    semconv.REQUEST_MAX_TOKENS: max_tokens,
                    semconv.REQUEST_STOP_SEQUENCES: stop_sequences,
                    semconv.REQUEST_STREAM: stream,
                    semconv.RESPONSE_MODEL: response_model,
                    semconv.RESPONSE_ID: response_id,
                    semconv.FINISH_REASONS: reasons,
                    semconv.INPUT_TOKENS: input_tokens,
                    semconv.OUTPUT_TOKENS: output_tokens,
                    semconv.CACHE_READ_TOKENS: cache_read_tokens,
                    semconv.CACHE_WRITE_TOKENS: cache_write_tokens,
                    semconv.REASONING_TOKENS: reasoning_tokens,
                    semconv.TIME_TO_FIRST_CHUNK: time_to_first_token,
                    semconv.COST_USD: cost_usd,
                }
            )
        )

    def set_tool(
        self,
        *,
        name: str | None = None,
        call_id: str | None = None,
        description: str | None = None,
        arguments: Any = None,
        result: Any = None,
    ) -> None:
        """Set the tool that was called, its arguments (any value, best a dict) and its result (any value)."""
        self.set_attributes(
            given(
                {
                    semconv.TOOL_NAME: name,
                    semconv.TOOL_CALL_ID: call_id,
                    semconv.TOOL_DESCRIPTION: description,
                    semconv.TOOL_CALL_ARGUMENTS: arguments,
                    semconv.TOOL_CALL_RESULT: result,
                }
            )
        )

    def set_retrieval(self, *, data_source: str | None = None, query: str | None = None, documents: Any = None) -> None:
        """Set the searched source, the query, and the documents found (best a list of dicts with `id` and `score`)."""
        self.set_attributes(
            given(
                {
                    semconv.DATA_SOURCE_ID: data_source,
                    semconv.RETRIEVAL_QUERY: query,
                    semconv.RETRIEVAL_DOCUMENTS: documents,
                }
            )
        )

    def set_service(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        instance_id: str | None = None,
        environment: str | None = None,
    ) -> None:
        """Set the service that did this span's work, if it is not the one given to `init()`."""
        self.set_attributes(
            given(
                {
                    semconv.SERVICE_NAME: name,
                    semconv.SERVICE_VERSION: version,
                    semconv.SERVICE_INSTANCE_ID: instance_id,
                    semconv.DEPLOYMENT_ENVIRONMENT: environment,
                }
            )
        )

    def set_error(
        self,
        kind: str,
        message: str | None = None,
        *,
        context: Any = None,
        stacktrace: str | None = None,
    ) -> None:
        """Mark the span as failed without an exception, for instance if a tool returns an error.

        Args:
            kind: The error type, with low cardinality: `timeout`, `invalid_request_error`, ….
            message: The error text; it is also the status message.
            context: Any value that helps to understand the error.
            stacktrace: Text.
        """
        self.set_attributes(
            given(
                {
                    semconv.ERROR_TYPE: kind,
                    semconv.ERROR_MESSAGE: message,
                    semconv.ERROR_CONTEXT: context,
                    semconv.ERROR_STACKTRACE: stacktrace,
                }
            )
        )
        self.set_status(SpanStatus.ERROR, kind if message is None else message)

    def add_llm_request(self, messages: Any, *, system: Any = None, tools: Any = None) -> None:
        """Add the event `llm.request`: what is sent to a model."""
        self.add_event(semconv.EVENT_LLM_REQUEST, given({"messages": messages, "system": system, "tools": tools}))

    def add_llm_response(self, content: Any, *, finish_reason: str | None = None) -> None:
        """Add the event `llm.response`: what a model returned."""
        self.add_event(semconv.EVENT_LLM_RESPONSE, given({"content": content, "finish_reason": finish_reason}))

    def add_tool_call(self, name: str, arguments: Any = None, *, call_id: str | None = None) -> None:
        """Add the event `tool.call`: a tool is called."""
        self.add_event(semconv.EVENT_TOOL_CALL, given({"name": name, "arguments": arguments, "id": call_id}))

    def add_tool_result(
        self,
        result: Any,
        *,
        name: str | None = None,
        call_id: str | None = None,
        is_error: bool | None = None,
    ) -> None:
        """Add the event `tool.result`: a tool has returned."""
        self.add_event(
            semconv.EVENT_TOOL_RESULT, given({"result": result, "name": name, "id": call_id, "is_error": is_error})
        )


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}
