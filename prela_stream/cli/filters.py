"""The options that choose traces, written once for every command that has them, and the query that they make."""

import math
import time
from typing import Annotated, Any, Final

import typer

from prela_stream.cli import completion, formats
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import TraceQuery, TraceStatus
from prela_stream.text import show

_LARGEST: Final = (1 << 63) - 1

ServiceOption = Annotated[
    str | None,
    typer.Option("--service", help="With a span of this service.", autocompletion=completion.services),
]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Started since: a duration ago (15m, 2h, 7d) or an ISO date or time.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Started before: written as --since.")]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the root span; * is any text and ? one character.")
]
StatusOption = Annotated[
    TraceStatus | None, typer.Option("--status", help="error: a span failed. Else the status of the root.")
]
ErrorsOption = Annotated[bool | None, typer.Option("--errors/--no-errors", help="With, or without, a failed span.")]
SessionOption = Annotated[str | None, typer.Option("--session", help="Of this session (gen_ai.conversation.id).")]
UserOption = Annotated[str | None, typer.Option("--user", help="Of this user (user.id).")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="With a call of this model.", autocompletion=completion.models)
]
ToolOption = Annotated[
    str | None, typer.Option("--tool", help="With a call of this tool.", autocompletion=completion.tools)
]
ErrorTypeOption = Annotated[str | None, typer.Option("--error-type", help="With a span that has this error.type.")]
AttributeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute", "-a", metavar="KEY=VALUE", help="With this attribute on a span or resource; repeatable."
    ),
]
MinDurationOption = Annotated[str | None, typer.Option("--min-duration", help="At least this long: 250ms, 1.5s, 2m.")]
MaxDurationOption = Annotated[str | None, typer.Option("--max-duration", help="Shorter than this.")]
MinTokensOption = Annotated[
    int | None,
    typer.Option("--min-tokens", min=0, max=_LARGEST, help="At least so many tokens, input and output together."),
]
MinCostOption = Annotated[
    float | None, typer.Option("--min-cost", min=0, max=1e12, help="At least this cost, US dollars.")
]
PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="Decided by this policy.", autocompletion=completion.policies)
]

OPTIONS: Final[dict[str, Any]] = {
    "service": ServiceOption,
    "name": NameOption,
    "status": StatusOption,
    "errors": ErrorsOption,
    "session": SessionOption,
    "user": UserOption,
    "model": ModelOption,
    "tool": ToolOption,
    "error_type": ErrorTypeOption,
    "attribute": AttributeOption,
    "min_duration": MinDurationOption,
    "max_duration": MaxDurationOption,
    "min_tokens": MinTokensOption,
    "min_cost": MinCostOption,
    "policy": PolicyOption,
    "since": SinceOption,
    "until": UntilOption,
}
"""Every option that chooses traces, by its parameter. A command takes them all with `command(…, filters=OPTIONS)`."""


def query_of(given: dict[str, Any], *, text: str | None = None, dropped: bool = False) -> TraceQuery:
    """The query of what the options were given; raises ConfigurationError.

    Args:
        given: The value of each option by its parameter.
        text: Words that all occur in a trace.
        dropped: Dropped traces instead of kept ones.
    """
    now = time.time_ns()
    since, until = (_time(given.get(name), now) for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        msg = f"--since is not before --until: got --since {show(given['since'])} and --until {show(given['until'])}"
        raise ConfigurationError(msg)
    cost = given.get("min_cost")
    if cost is not None and math.isnan(cost):
        msg = "--min-cost: expected an amount in US dollars, got nan"
        raise ConfigurationError(msg)
    attributes = tuple(given.get("attribute") or ())
    for one in attributes:
        if "=" not in one or one.startswith("="):
            msg = f"--attribute: expected KEY=VALUE, as in user.tier=gold; got {show(one)}"
            raise ConfigurationError(msg)
    query = TraceQuery(
        dropped=dropped,
        since_ns=since,
        until_ns=until,
        text=text,
        attributes=attributes,
        min_duration_ms=_duration(given.get("min_duration")),
        max_duration_ms=_duration(given.get("max_duration")),
        min_cost_usd=cost,
        **{name: given.get(name) for name in _SAME},
    )
    if dropped and (hidden := [name for name in _ONLY_KEPT if getattr(query, name)]):
        names = ", ".join(
            "--" + name.rstrip("s").replace("_", "-") if name == "attributes" else f"--{name}" for name in hidden
        )
        msg = f"--dropped: only the decision on a dropped trace is stored, which does not contain what {names} asks for"
        raise ConfigurationError(msg)
    return query


_SAME: Final = (
    "service",
    "name",
    "status",
    "errors",
    "session",
    "user",
    "model",
    "tool",
    "error_type",
    "min_tokens",
    "policy",
)
_ONLY_KEPT: Final = ("session", "user", "model", "tool", "error_type", "attributes", "text")


def is_narrow(query: TraceQuery) -> bool:
    """Whether a query has any condition but the kind of traces."""
    return query not in (TraceQuery(), TraceQuery(dropped=True))


def _time(text: str | None, now_ns: int) -> int | None:
    return None if text is None else formats.since(text, now_ns)


def _duration(text: str | None) -> float | None:
    return None if text is None else formats.milliseconds(text)
