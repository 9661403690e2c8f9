"""A trajectory of SWE-agent (`.traj`): `{"trajectory": [{"action", "observation", "response"}], "history": […], "info": {…}}`.

The run is an agent's span. Each step is a model call, and a tool call if the step has an action. The file has no times. So a span
starts where the one before it ended, and the whole run starts at 0. Tokens are counted for the run alone, and are kept there.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from prela_stream.otel.spans import ForeignSpan, Rejected
from prela_stream.otel.values import as_float, as_map, maps_in, text

_STATS: Final[Mapping[str, str]] = {
    "tokens_sent": "gen_ai.aggregated_usage.input_tokens",
    "tokens_received": "gen_ai.aggregated_usage.output_tokens",
    "instance_cost": "swe_agent.instance_cost",
    "api_calls": "swe_agent.api_calls",
}
_STEP_NS: Final = 1_000
"""Of a step without a time."""


def recognised(document: Any) -> bool:
    """Whether a document is a trajectory."""
    return isinstance(document, Mapping) and isinstance(steps := document.get("trajectory"), list) and _has_steps(steps)


def _has_steps(steps: Sequence[Any]) -> bool:
    return any(isinstance(one, Mapping) and ("action" in one or "response" in one) for one in steps)


def read(document: Any) -> Iterator[ForeignSpan | Rejected]:
    """The run, and the calls of each step."""
    content = msgspec.json.encode(document, order="deterministic")
    run = _Run(content)
    history = maps_in(document.get("history"))
    for index, step in enumerate(document["trajectory"]):
        if isinstance(step, Mapping):
            yield from run.step(index, step, history)
        else:
            reason = f"expected a step as an object, found {type(step).__name__}"
            yield Rejected(place=f"$.trajectory[{index}]", reason=reason)
    yield run.root(document)


class _Run:
    """The spans of a trajectory, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = hashlib.blake2b(content).digest()
        self._trace_id = hashlib.blake2b(content, digest_size=16).digest()
        self._now = 0

    def root(self, document: Mapping[str, Any]) -> ForeignSpan:
        info = as_map(document.get("info"))
        stats = as_map(info.get("model_stats"))
        attributes: dict[str, Any] = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "swe-agent"}
        for key in ("exit_status", "submission"):
            if info.get(key) is not None:
                attributes[f"swe_agent.{key}"] = info[key]
        if document.get("environment") is not None:
            attributes["swe_agent.environment"] = document["environment"]
        attributes.update({name: stats[key] for key, name in _STATS.items() if stats.get(key)})
        return ForeignSpan(
            trace_id=self._trace_id,
            span_id=self._id("run"),
            name="swe-agent",
            end_ns=self._now,
            attributes=attributes,
        )

    def step(
        self, index: int, step: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
    ) -> Iterator[ForeignSpan | Rejected]:
        asked = step.get("query") or step.get("messages") or _before(index, history)
        answer = text(step.get("response")) or text(step.get("thought"))
        call: dict[str, Any] = {"gen_ai.operation.name": "chat"}
        if asked:
            call["gen_ai.input.messages"] = asked
        if answer:
            call["gen_ai.output.messages"] = [{"role": "assistant", "content": answer}]
        yield self._span(f"{index} call", "model call", call, _STEP_NS)
        if (action := text(step.get("action"))) is not None:
            tool = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": next(iter(action.split()), "action"),
                "gen_ai.tool.call.arguments": action,
                "gen_ai.tool.call.result": step.get("observation"),
            }
            seconds = as_float(step.get("execution_time")) or 0.0
            yield self._span(f"{index} tool", str(tool["gen_ai.tool.name"]), tool, round(seconds * 1e9) or _STEP_NS)

    def _span(self, key: str, name: str, attributes: dict[str, Any], duration: int) -> ForeignSpan:
        start, self._now = self._now, self._now + duration
        return ForeignSpan(
            trace_id=self._trace_id,
            span_id=self._id(key),
            parent_span_id=self._id("run"),
            name=name,
            start_ns=start,
            end_ns=self._now,
            attributes=attributes,
        )

    def _id(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), digest_size=8, key=self._content).digest()


def _before(index: int, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages before the answer of a step."""
    answers = [
        number for number, one in enumerate(history) if one.get("role") == "assistant" and not one.get("is_demo")
    ]
    if index >= len(answers):
        return []
    return [{"role": one.get("role"), "content": one.get("content")} for one in history[: answers[index]]]
