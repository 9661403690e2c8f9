"""What the bundled model server answers: a scripted model that is a pure function of the request and a seed.

It reads the conversation as a model would: while it has rounds left it asks for tools that the request offers, then it
answers in prose. The same request with the same seed gives the same bytes, so a run can be repeated and compared. The shapes
(blocks, stream events, usage) are those of the Anthropic Messages API. It knows nothing of HTTP.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec

TOPICS = (
    "solid state batteries", "the tail latency of queues", "urban heat islands", "sourdough starters",
    "coral restoration", "container shipping rates", "grid frequency control", "the price of lithium",
)  # fmt: skip
SENTENCES = (
    "The sources agree on the direction, though not on its size.",
    "Two of the three figures come from the same survey, so they count once.",
    "Costs fell by about a fifth a year, mostly because of scale.",
    "The exception is well documented and does not change the result.",
    "Earlier estimates left out storage, which explains the gap.",
    "A cautious reading puts the effect between four and nine percent.",
    "Most of the risk sits in the first two years.",
    "The calculation confirms the order of magnitude.",
)
CHARACTERS_A_TOKEN = 4


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the scripted model, with the usage that the API would report."""

    id: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None = None
    usage: dict[str, Any]

    def message(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        return {"type": "message", "role": "assistant", **msgspec.to_builtins(self)}


def answer(request: dict[str, Any], *, seed: int, behaviour: str = "normal") -> Answer:
    """The next answer of the model.

    Args:
        request: The body of `POST /v1/messages`.
        seed: Chooses topics, tools, arguments and the number of tool rounds.
        behaviour: `runaway` asks for the same tool with the same arguments for ever; `max_tokens` and `refusal` stop for
            that reason; anything else is a normal conversation.
    """
    messages = request.get("messages", [])
    turn = sum(1 for message in messages if message.get("role") == "assistant")
    conversation = random.Random(f"{seed}/{_first_text(messages)}")  # the same plan in each turn of a conversation
    rounds = conversation.randint(1, 3)
    topic = conversation.choice(TOPICS)
    turn_random = random.Random(f"{seed}/{_first_text(messages)}/{0 if behaviour == 'runaway' else turn}")
    tools = [tool for tool in request.get("tools") or [] if "input_schema" in tool]
    content: list[dict[str, Any]] = []
    if (request.get("thinking") or {}).get("type") not in (None, "disabled"):
        content.append({"type": "thinking", "thinking": f"What is asked is about {topic}.", "signature": "c2lnbmVk"})
    if tools and behaviour != "refusal" and (behaviour == "runaway" or turn < rounds):
        content.append({"type": "text", "text": f"I will look into {topic}."})
        chosen = tools[:1] if behaviour == "runaway" else turn_random.sample(tools, min(len(tools), 1 + turn % 2))
        content.extend(_tool_use(tool, turn, topic, turn_random) for tool in chosen)
        stop_reason = "tool_use"
    else:
        sentences = turn_random.sample(SENTENCES, 3)
        content.append({"type": "text", "text": " ".join([f"On {topic}:", *sentences])})
        stop_reason = behaviour if behaviour in ("max_tokens", "refusal") else "end_turn"
    return Answer(
        id=f"msg_{_digest(seed, request)[:24]}",
        model=request.get("model", ""),
        content=content,
        stop_reason=stop_reason,
        usage=_usage(request, content),
    )


def count_tokens(request: dict[str, Any]) -> int:
    """The input tokens of a request, cached or not: its JSON length over four."""
    return sum(_tokens(request.get(key)) for key in ("system", "tools", "messages"))


def stream_events(reply: Answer) -> Iterator[dict[str, Any]]:
    """The reply as the events of a stream, `message_start` to `message_stop`; text comes three words at a time."""
    start = {**reply.message(), "content": [], "stop_reason": None, "usage": {**reply.usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(reply.content):
        empty, deltas = _block_parts(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reply.stop_reason, "stop_sequence": reply.stop_sequence},
        "usage": {key: value for key, value in reply.usage.items() if isinstance(value, int)},
    }
    yield {"type": "message_stop"}


def _block_parts(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The empty block that opens it in a stream, and the deltas that fill it."""
    if block["type"] == "text":
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in _pieces(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": part} for part in _pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    text = json.dumps(block["input"])
    parts = ["", *(text[at : at + 12] for at in range(0, len(text), 12))]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    groups = [" ".join(words[at : at + 3]) for at in range(0, len(words), 3)]
    return [piece + " " for piece in groups[:-1]] + groups[-1:]


def _tool_use(tool: dict[str, Any], turn: int, topic: str, rng: random.Random) -> dict[str, Any]:
    properties = tool["input_schema"].get("properties", {})
    arguments = {name: _argument(name, schema, topic, rng) for name, schema in properties.items()}
    digest = _digest(turn, [tool["name"], arguments])
    return {"type": "tool_use", "id": f"toolu_{digest[:24]}", "name": tool["name"], "input": arguments}


def _argument(name: str, schema: dict[str, Any], topic: str, rng: random.Random) -> Any:
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema.get("type"):
        case "integer":
            return rng.randint(1, 20)
        case "number":
            return round(rng.uniform(1, 20), 2)
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return [topic]
        case "string" if name == "expression":
            return f"{rng.randint(12, 99)} * {rng.randint(3, 20)} + {rng.randint(1, 500)}"
    return topic


def _usage(request: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
    """As with prompt caching: the prefix is written in the first turn, all but the last message is read afterwards."""
    messages = request.get("messages", [])
    prefix = _tokens(request.get("system")) + _tokens(request.get("tools"))
    earlier, last = _tokens(messages[:-1]), _tokens(messages[-1:])
    written, read = (prefix, 0) if len(messages) <= 1 else (earlier // 4, prefix + earlier - earlier // 4)
    thinking = sum(_tokens(block["thinking"]) for block in content if block["type"] == "thinking")
    return {
        "input_tokens": last,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": max(2, _tokens(content)),
        "output_tokens_details": {"thinking_tokens": thinking},
        "service_tier": "standard",
    }


def _tokens(part: Any) -> int:
    return len(json.dumps(part)) // CHARACTERS_A_TOKEN if part else 0


def _first_text(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages[0].get("content")) if messages else ""


def _digest(seed: int, value: Any) -> str:
    return hashlib.blake2b(f"{seed}/{json.dumps(value, sort_keys=True)}".encode(), digest_size=12).hexdigest()
