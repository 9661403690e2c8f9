"""Which steps of the normaliser concern a span, from the names of its attributes alone.

The normaliser knows some 300 names, and a span has a dozen of them or none. Spans of one tracer have the same names again and
again, so what is found for a set of names is kept.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from prela_stream.model import semconv
from prela_stream.model.span import SpanType
from prela_stream.otel import content, sources
from prela_stream.otel.answers import ANSWERS
from prela_stream.otel.dialects import DIALECTS
from prela_stream.otel.evidence import EVIDENCE, has_more_evidence, may_be_model_call
from prela_stream.otel.names import PARAMETER_MAPS, RENAMED
from prela_stream.otel.usage import CONSUMED, UsageKeys, usage_keys

MILLISECONDS: Final = ("gen_ai.server.time_to_first_token", "ai.response.msToFirstChunk", "llm.time_to_first_token_ms")
STARTED: Final = "langfuse.observation.completion_start_time"
_JSON_VALUED: Final = (
    semconv.TOOL_CALL_ARGUMENTS,
    semconv.TOOL_CALL_RESULT,
    semconv.RETRIEVAL_DOCUMENTS,
    semconv.REQUEST_STOP_SEQUENCES,
)
NUMBERS: Final = (
    *(semconv.REQUEST_MAX_TOKENS, semconv.REQUEST_TEMPERATURE, semconv.REQUEST_TOP_P, semconv.REQUEST_TOP_K),
    *(semconv.REQUEST_SEED, semconv.REQUEST_CHOICE_COUNT, semconv.REQUEST_FREQUENCY_PENALTY),
    *(semconv.REQUEST_PRESENCE_PENALTY, semconv.RETRIEVAL_TOP_K),
)
_SPELLINGS: Final[dict[str, list[str]]] = {}
for _alias, _name in RENAMED.items():
    if _alias not in CONSUMED and _name not in CONSUMED:
        _SPELLINGS.setdefault(_name, [_name])
        if _alias not in _SPELLINGS[_name]:
            _SPELLINGS[_name].append(_alias)

_MOST_SHAPES: Final = 2_048
_MOST_NAMES: Final = 64
_MOST_CHARACTERS: Final = 4_096
"""Of all names together. What is kept takes less than 20 MB."""
_shapes: Final[dict[bool, dict[tuple[str, ...], "Shape"]]] = {False: {}, True: {}}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the normaliser's tables that a span with attributes of certain names needs."""

    evidence: tuple[tuple[str, Callable[[str], SpanType | None]], ...]
    may_be_call: bool
    """Whether there are a model and a usage, which make a model call of a span without other evidence."""
    more_evidence: bool
    """Whether there is other evidence."""
    renamed: tuple[tuple[str, str, tuple[str, ...], bool], ...]
    """A name, the spelling of it that is there, further ones that are there, and whether its value is JSON."""
    usage: UsageKeys | None
    consumed: tuple[str, ...]
    parameters: tuple[str, ...]
    first_chunk: bool
    has_content: bool
    """Whether any of the following sources is there."""
    instructions: tuple[sources.Source, ...]
    tools: tuple[sources.Source, ...]
    inputs: tuple[sources.Source, ...]
    outputs: tuple[sources.Source, ...]
    plain_inputs: tuple[sources.Source, ...]
    """Those that hold messages if the span is a model call."""
    plain_outputs: tuple[sources.Source, ...]
    plain_tools: tuple[sources.Source, ...]
    answers: tuple[str, ...]
    """Attributes that may hold the raw answer of a model."""
    numbers: tuple[str, ...]
    """Names whose values are numbers, also if the tracer wrote texts."""
    dialect: Callable[[Mapping[str, Any]], dict[str, Any] | None] | None
    """What gives the attributes known names first, if a tracer has own ones."""


def shape_of(attributes: Mapping[str, Any], *, events: bool) -> Shape:
    """The shape of a span with these attributes, and with or without events."""
    names = tuple(attributes)
    known = _shapes[events]
    shape = known.get(names)
    if shape is None:
        shape = find_shape(attributes.keys(), events=events)
        if len(names) <= _MOST_NAMES and sum(map(len, names)) <= _MOST_CHARACTERS:
            if len(known) >= _MOST_SHAPES:
                known.clear()
            known[names] = shape
    return shape


def find_shape(keys: Collection[str], *, events: bool) -> Shape:
    """As `shape_of`, computed."""

    def those(places: Collection[sources.Source]) -> tuple[sources.Source, ...]:
        return tuple(source for source in places if source.may_be_in(keys, events=events))

    places = {
        "instructions": those(content.INSTRUCTIONS),
        "tools": those(content.TOOL_DEFINITIONS),
        "inputs": those(content.INPUTS),
        "outputs": those(content.OUTPUTS),
        "plain_inputs": those(content.PLAIN_INPUTS),
        "plain_outputs": those(content.PLAIN_OUTPUTS),
        "plain_tools": those(content.PLAIN_TOOLS),
    }
    return Shape(
        evidence=tuple((key, convert) for key, convert in EVIDENCE if key in keys),
        may_be_call=may_be_model_call(keys),
        more_evidence=has_more_evidence(keys),
        renamed=tuple(
            (name, present[0], present[1:], name in _JSON_VALUED)
            for name, spellings in _SPELLINGS.items()
            if (present := tuple(key for key in spellings if key in keys))
        ),
        usage=usage_keys(keys),
        consumed=tuple(key for key in keys if key in CONSUMED),
        parameters=tuple(key for key in PARAMETER_MAPS if key in keys),
        first_chunk=STARTED in keys or any(key in keys for key in MILLISECONDS),
        has_content=any(places.values()),
        **places,
        answers=tuple(key for key in ANSWERS if key in keys),
        numbers=tuple(
            name for name in NUMBERS if any(key in keys for key in (name, *_SPELLINGS.get(name, ()), *PARAMETER_MAPS))
        ),
        dialect=next((read for key, read in DIALECTS.items() if key in keys), None),
    )
