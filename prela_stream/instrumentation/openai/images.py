"""Maps the JSON of the Images API to attributes: prompts, tokens, and what each image is. No image is recorded. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from prela_stream.instrumentation.http.sse import StreamEvent
from prela_stream.instrumentation.openai.chat import ChatCompletion
from prela_stream.instrumentation.openai.fields import (
    API_TYPE,
    answer_attributes,
    described_failure,
    request_attributes,
)
from prela_stream.instrumentation.provider import Failure, StreamState, read_json
from prela_stream.model import semconv
from prela_stream.otel.messages import messages_of
from prela_stream.privacy.media import decoded_size

IMAGE_COUNT: Final = "openai.images.count"
"""Number of images in the answer."""
_DESCRIBED: Final = ("background", "output_format", "quality", "size")


class GenerateImage(ChatCompletion):
    """`POST /images/generations` and `POST /images/edits`: as `Operation`. Only some models report tokens."""

    name = "generate_content"
    price_flavor: str | None = None

    def request_attributes(self, body: object) -> dict[str, Any]:
        """As `Operation.request_attributes`."""
        kind = {semconv.OPERATION_NAME: self.name, API_TYPE: "images", semconv.OUTPUT_TYPE: "image"}
        return {**request_attributes(body), **kind}

    def request_content(self, body: object) -> dict[str, Any]:
        """As `Operation.request_content`."""
        prompt = body.get("prompt") if isinstance(body, Mapping) else None
        return {semconv.INPUT_MESSAGES: messages_of(prompt)} if isinstance(prompt, str) and prompt else {}

    def response_attributes(self, answer: Mapping[str, Any], *, content: bool) -> dict[str, Any]:
        """As `Operation.response_attributes`."""
        found = answer_attributes(answer)
        images = answer.get("data")
        if not isinstance(images, list):
            return found
        found[IMAGE_COUNT] = len(images)
        for name in _DESCRIBED:
            if isinstance(value := answer.get(name), str):
                found[f"openai.images.{name}"] = value
        parts = [_part(one) for one in images if isinstance(one, Mapping)]
        if content and parts:
            found[semconv.OUTPUT_MESSAGES] = [{"role": "assistant", "parts": parts}]
        return found

    def stream_state(self, *, content: bool) -> StreamState:  # noqa: ARG002 - no part of an image is kept
        """As `Operation.stream_state`."""
        return ImageStream()


def _part(image: Mapping[str, Any]) -> dict[str, Any]:
    """What an image is, and its size or location."""
    if isinstance(url := image.get("url"), str) and url:
        return {"type": "uri", "modality": "image", "uri": url}
    return {"type": "blob", "modality": "image", "size": image.get("size") or decoded_size(image.get("b64_json"))}


class ImageStream:
    """As `StreamState`, for the events `partial_image` and `completed` of an image that is generated or edited."""

    last_event: str | None = "completed"

    def __init__(self) -> None:
        self.is_complete = False
        self.has_output = False
        self.failure: Failure | None = None
        self._answer: dict[str, Any] = {}
        self._images: list[dict[str, Any]] = []

    def add(self, event: StreamEvent) -> bool:
        """As `StreamState.add`."""
        data = event.data.strip()
        if not data or data.startswith(b"[DONE]"):
            return True
        found = read_json(data)
        if not isinstance(found, Mapping):
            return False
        if found.get("type") == "error" or found.get("error"):
            error = found.get("error")
            self.failure = described_failure(error if isinstance(error, Mapping) else found)
            return True
        _, _, kind = str(found.get("type")).rpartition(".")
        if kind == "completed":
            self.is_complete = True
            self._answer = {key: value for key, value in found.items() if key != "b64_json"}
            self._images.append({"size": decoded_size(found["b64_json"])})
        self.has_output = self.has_output or kind in ("completed", "partial_image")
        return kind in ("completed", "partial_image")

    def answer(self) -> dict[str, Any]:
        """As `StreamState.answer`."""
        return {**self._answer, "data": self._images} if self._answer else {}
