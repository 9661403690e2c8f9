"""What a shell completes: ids of traces, services, models, tools, policies, from the store that the settings name.

A completion that fails gives nothing: an error would end up in the line that the user is writing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prela_stream.sinks.reader import TraceReader

_MOST: Final = 200


def trace_ids(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """The newest traces with their names."""

    async def question(reader: TraceReader) -> Iterable[tuple[str, str]]:
        from prela_stream.sinks.query import TraceQuery

        rows = await reader.list_traces(TraceQuery(), limit=_MOST)
        return [(row.trace_id, row.root_name) for row in rows]

    return [(found[:12], name) for found, name in _ask(ctx, question) if found.startswith(incomplete.lower())]


def services(ctx: Any, incomplete: str) -> list[str]:
    """The services of the newest traces."""
    return _of_rows(ctx, incomplete, lambda row: row.services)


def models(ctx: Any, incomplete: str) -> list[str]:
    """The models of the newest traces."""
    return _of_rows(ctx, incomplete, lambda row: row.models)


def tools(ctx: Any, incomplete: str) -> list[str]:
    """The tools of the newest traces."""
    return _of_rows(ctx, incomplete, lambda row: row.tools)


def policies(ctx: Any, incomplete: str) -> list[str]:
    """The policies that decided."""

    async def question(reader: TraceReader) -> Iterable[str]:
        return [one.name for one in await reader.decided_totals("policy")]

    return _matching(_ask(ctx, question), incomplete)


def _of_rows(ctx: Any, incomplete: str, names: Callable[[Any], Iterable[str]]) -> list[str]:
    async def question(reader: TraceReader) -> Iterable[str]:
        from prela_stream.sinks.query import TraceQuery

        rows = await reader.list_traces(TraceQuery(), limit=_MOST)
        return sorted({name for row in rows for name in names(row)})

    return _matching(_ask(ctx, question), incomplete)


def _matching(found: Iterable[str], incomplete: str) -> list[str]:
    return [one for one in found if one.startswith(incomplete)]


def _ask(ctx: Any, question: Callable[[TraceReader], Awaitable[Iterable[Any]]]) -> list[Any]:
    from prela_stream import app as root
    from prela_stream.cli.running import ask
    from prela_stream.config import load_settings
    from prela_stream.errors import PrelaError

    given = {**(ctx.find_root().params or {}), **{name: value for name, value in ctx.params.items() if value}}
    overrides = {name: given[name] for name in ("directory", "transport") if given.get(name)}

    async def asked() -> list[Any]:
        async with root.open_reader(load_settings(given.get("config"), overrides=overrides)) as reader:
            return list(await question(reader))

    with suppress(PrelaError, OSError):
        return ask(asked)
    return []
