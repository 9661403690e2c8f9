"""Maps the JSON of the Embeddings API to attributes. The texts and the vectors are not recorded. Pure."""

from collections.abc import Mapping
from typing import Any

from prela_stream.instrumentation.openai.chat import ChatCompletion
from prela_stream.instrumentation.openai.fields import answer_attributes, request_attributes
from prela_stream.model import semconv
from prela_stream.model.span import SpanType


class CreateEmbeddings(ChatCompletion):
    """`POST /embeddings`: as `Operation`."""

    name = "embeddings"
    span_type = SpanType.EMBEDDING
    price_flavor: str | None = "embeddings"

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        return {semconv.OPERATION_NAME: self.name, **request_attributes(body)}

    def request_content(self, body: object) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.request_content`."""
        return {}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:  # noqa: ARG002 - the protocol
        """As `Operation.response_attributes`."""
        return answer_attributes(answer)
