"""Why an answer is empty: which folder was read, how many traces are decided, dropped and waiting, and what would keep them."""

from pathlib import Path

from prela_stream import app as root
from prela_stream.cli import filters
from prela_stream.cli.consoles import note
from prela_stream.cli.formats import clean
from prela_stream.cli.running import ask
from prela_stream.config import Settings
from prela_stream.errors import PrelaError
from prela_stream.sinks.query import TraceQuery
from prela_stream.validation import absolute
from prela_stream.views.formats import plural


def explain_nothing(settings: Settings, where: TraceQuery, *, offset: int = 0, what: str = "trace") -> None:
    """Print why nothing was found, to standard error: dropping most traces of a new set-up is no fault.

    Args:
        settings: Which store was asked.
        where: What it was asked.
        offset: How many rows were to be skipped.
        what: `trace`, or `session`.
    """
    note(clean(ask(lambda: _explanation(settings, where, offset, what)), lines=True))


async def _explanation(settings: Settings, where: TraceQuery, offset: int, what: str) -> str:
    async with root.open_reader(settings) as reader:
        totals = await reader.totals()
        others = await reader.count(TraceQuery(dropped=not where.dropped)) if not filters.is_narrow(where) else 0
    kind = "dropped trace" if where.dropped else "kept trace"
    folder = absolute(Path(settings.directory))
    nothing = f"there is no {kind if what == 'trace' else what}"
    if filters.is_narrow(where) or offset:
        nothing = f"no {what} matches"
    counts = (
        f"{nothing} in {folder}: {plural(totals['decisions'], 'trace')} decided, {totals['kept']:,} kept, "
        f"{totals['dropped']:,} dropped, {await _waiting(settings)}"
    )
    lines = [counts]
    if what == "session":
        lines.append(
            "A trace belongs to a session if a span has gen_ai.conversation.id, as in `with prela.session(id):`"
        )
    if filters.is_narrow(where) or offset:
        total = totals["dropped" if where.dropped else "kept"]
        if total and what == "trace":
            lines.append(f"remove an option: without one, {plural(total, kind)} would be listed")
    elif not totals["decisions"]:
        lines.append(
            "A trace is decided once it is complete or idle, while `prela-stream dev` or `prela-stream worker` is running "
            "on this folder"
        )
    elif others and not where.dropped:
        lines += await _what_keeps(settings)
    return "\n".join(lines)


async def _waiting(settings: Settings) -> str:
    """How many traces are in the log and not decided."""
    if settings.transport != "local":
        return "the waiting ones are known to the workers (`prela-stream traces running`)"
    try:
        found = await root.undecided_traces(settings)
    except PrelaError as error:
        return f"the waiting ones are not known: {error}"
    more = "" if found.complete else "at least "
    return f"{more}{len(found.traces):,} waiting for a decision"


async def _what_keeps(settings: Settings) -> list[str]:
    """Which policies keep traces, with what share."""
    try:
        policies = root.load_policy_set(settings)
    except PrelaError as error:
        return [f"the policies cannot be read: {error}"]
    names = ", ".join(policy.name for policy in policies.policies)
    text = (
        f"A worker with the policies of {policies.source} ({names}) would keep some. `prela-stream traces list --dropped` lists "
        "the dropped ones with the policy that dropped each; `prela-stream dev` without a policy file keeps every trace"
    )
    return [text]
