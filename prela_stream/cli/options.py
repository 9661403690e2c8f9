"""The options that every command shares, written once: settings file, directory, transport, JSON, traceback."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from prela_stream.cli.group import Group
from prela_stream.cli.values import Command

if TYPE_CHECKING:
    from prela_stream.config import Settings

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Settings file. Default: $PRELA_CONFIG or ./prela.toml.")
]
DirOption = Annotated[
    str | None,
    typer.Option("--dir", metavar="DIR", help="Folder of the local transport and the store. Default: .prela."),
]
TransportOption = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="local|kafka",
        help="What carries the records. Default: kafka if PRELA_KAFKA_BOOTSTRAP or kafka.bootstrap is set, else local.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print one JSON document per line instead of text.")]


def _show_tracebacks(ctx: typer.Context, _parameter: Any, asked: bool) -> bool:
    command = ctx.find_root().command
    if asked and isinstance(command, Group):
        command.debug = True
    return asked


DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_show_tracebacks, is_eager=True, help="Print the traceback of an error, for a bug report."
    ),
]
_SETTINGS: Final[dict[str, Any]] = {"config": ConfigOption, "directory": DirOption, "transport": TransportOption}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the shared options of a command and of the program in front of it were given."""

    config: str | None
    directory: str | None
    transport: str | None
    as_json: bool = False

    def settings(self, default_directory: str | None = None) -> Settings:
        """The settings; raises ConfigurationError."""
        from prela_stream.config import load_settings

        given = {"directory": self.directory or default_directory, "transport": self.transport}
        return load_settings(self.config, overrides={key: value for key, value in given.items() if value is not None})


def command_group(text: str) -> typer.Typer:
    """A group of commands, for a module's `app`."""
    return typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help=text)


def command(
    group: typer.Typer, name: str, *, as_json: Any = JsonOption, filters: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Any]:
    """Add a function as the command `name`. Its first parameter is the `Options`, the others are typer's.

    Args:
        group: Where to add it.
        name: The word for it.
        as_json: The option `--json`; None for a command without it.
        filters: Further options that the function gets as one dict, its second parameter.
    """
    shared = {**_SETTINGS, **({} if as_json is None else {"as_json": as_json}), "debug": DebugOption}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1 if filters is None else 2 :]

        @functools.wraps(function)
        def run(ctx: typer.Context, **values: Any) -> None:
            given = {key: values.pop(key) for key in shared}
            chosen = () if filters is None else ({key: values.pop(key) for key in filters},)
            function(_options(ctx, given), *chosen, **values)

        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(_parameter(key, annotation) for key, annotation in (filters or {}).items()),
            *(_parameter(key, annotation) for key, annotation in shared.items()),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return group.command(name, cls=Command)(run)

    return decorate


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    default = False if name in ("as_json", "debug") else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _options(ctx: typer.Context, given: dict[str, Any]) -> Options:
    """The options of the command; those in front of it where the command has none."""
    root: dict[str, Any] = ctx.find_root().obj or {}
    chosen = {key: given[key] or root.get(key) for key in _SETTINGS}
    return Options(**chosen, as_json=given.get("as_json", False))
