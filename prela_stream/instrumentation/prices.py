"""The cost of a recorded model call, from the price list of `genai-prices` (extra `prices`), which is read offline.

A cost that is not known is absent, never zero: without the package, for a model that the list does not have, for a call whose
usage was not received, and for usage that the list cannot price.
"""

import importlib
import importlib.util
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from prela_stream.errors import guard
from prela_stream.model import semconv

_PACKAGE: Final = "genai_prices"
_PLATFORMS: Final = {
    "anthropic": "anthropic",
    "openai": "openai",
    "aws.bedrock": "aws",
    "gcp.vertex_ai": "google",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "deepseek": "deepseek",
    "groq": "groq",
    "mistral_ai": "mistral",
    "perplexity": "perplexity",
    "x_ai": "x-ai",
}
"""The provider in the price list by `gen_ai.provider.name`: a platform may have its own prices."""
_CONTEXT: Final = ("service_tier", "speed")
"""Fields of an answer on which a price may depend."""
_guard: Final = guard("instrumentation.prices")


class PriceList:
    """Loads the package in a thread, because its import takes a third of a second and a call may be in an event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._package: Any = None

    def load(self) -> None:
        """Begin to load the list, if the package is installed. Another call does nothing."""
        with self._lock:
            if self._thread is None and importlib.util.find_spec(_PACKAGE) is not None:
                self._thread = threading.Thread(target=self._import, name="prela-prices", daemon=True)
                self._thread.start()

    def _import(self) -> None:
        with _guard:
            package = importlib.import_module(_PACKAGE)
            package.calc_price(package.Usage(input_tokens=1), "gpt-4o", provider_id="openai")  # builds its tables
            self._package = package

    def cost_attributes(
        self, answer: Mapping[str, Any], attributes: Mapping[str, Any], *, module: str, flavor: str, began: datetime
    ) -> dict[str, Any]:
        """The attributes for the cost of a call; empty if it is not known.

        Args:
            answer: As the API sent it.
            attributes: Those of the span.
            module: The library, whose API has this name in the price list.
            flavor: The part of the API.
            began: When the call began: prices change.
        """
        platform = _PLATFORMS.get(attributes.get(semconv.PROVIDER_NAME, ""))
        if self._thread is None or platform is None or semconv.INPUT_TOKENS not in attributes:
            return {}
        self._thread.join()
        if self._package is None:
            return {}
        model = attributes.get(semconv.RESPONSE_MODEL) or attributes.get(semconv.REQUEST_MODEL)
        found = {**answer, "model": model}
        context = {key: value for key in _CONTEXT if isinstance(value := _found(answer, key), str)}
        try:
            usage = self._package.extract_usage(found, provider_id=module, api_flavor=flavor).usage
            price = self._package.calc_price(
                usage, model, provider_id=platform, genai_request_timestamp=began, price_context=context
            )
        except (LookupError, ValueError, TypeError):  # an unknown model, or usage of a kind that has no price
            return {}
        return {
            semconv.COST_USD: float(price.total_price),
            semconv.COST_SOURCE: f"genai-prices {self._package.__version__}",
            semconv.COST_DATE: began.date().isoformat(),
        }


def _found(answer: Mapping[str, Any], key: str) -> Any:
    usage = answer.get("usage")
    return answer.get(key, usage.get(key) if isinstance(usage, Mapping) else None)


PRICES: Final = PriceList()
"""The price list of this process."""
