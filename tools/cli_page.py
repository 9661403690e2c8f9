"""docs/cli.md: every command of `prela-stream` with its arguments and options."""

from collections.abc import Iterator
from typing import Any, Final, Literal, get_args, get_origin

import typer

from prela_stream.cli.main import app
from tools.docstrings import cell

INTRODUCTION: Final = """\
# The command line

`pip install 'prela-stream[cli]'` installs `prela-stream`. Results go to standard output, everything else to standard error.

Exit codes: 0 done; 1 the answer is no (nothing found, something wrong) or the command failed; 2 the command line, the settings
or a file are wrong; 130 stopped by Ctrl-C. An error is one sentence, or one line for each mistake of a file. `--debug` prints
the traceback too.
"""
_SHARED: Final = ("config", "directory", "transport", "debug")


def text() -> str:
    """The page."""
    root = typer.main.get_command(app)
    shared = [option for option in root.params if option.name in _SHARED]
    parts = [
        INTRODUCTION,
        "## Options of every command\n\nThey may be given before or after the command.\n",
        _options(shared),
    ]
    parts += [_section(path, command) for path, command in _commands("prela-stream", root)]
    return "\n".join(parts)


def _commands(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    context = typer.Context(group)
    for name in group.list_commands(context):
        here, command = f"{path} {name}", group.get_command(context, name)
        if hasattr(command, "commands"):
            yield from _commands(here, command)
        else:
            yield here, command


def _section(path: str, command: Any) -> str:
    own = [one for one in command.params if one.param_type_name == "option" and one.name not in (*_SHARED, "help")]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = "".join(f" {_argument(one)}" for one in arguments)
    parts = [f"\n## {path}\n", f"```text\n{path}{words} [OPTIONS]\n```\n", " ".join((command.help or "").split())]
    if arguments:
        parts.append("\n| argument | meaning |\n|---|---|")
        parts += [f"| `{_argument(one)}` | {cell(one.help or '')} |" for one in arguments]
    if own:
        parts += ["", _options(own)]
    return "\n".join(parts)


def _argument(one: Any) -> str:
    name = (one.metavar or one.name).upper().strip("{}[]")
    name += "…" if one.nargs == -1 else ""
    return name if one.required else f"[{name}]"


def _options(options: list[Any]) -> str:
    rows = ["| option | values | default | meaning |", "|---|---|---|---|"]
    rows += [f"| {_names(one)} | {_values(one)} | {_default(one)} | {cell(one.help or '')} |" for one in options]
    return "\n".join(rows)


def _names(one: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))


def _values(one: Any) -> str:
    if one.is_flag:
        return ""
    annotation = one.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if one.min is not None:
        return f"{'a whole number' if annotation is int else 'a number'} from {one.min:,} to {one.max:,}"
    return f"`{one.metavar}`".replace("|", "\\|") if one.metavar else "text"


def _default(one: Any) -> str:
    return "" if one.default is None or one.is_flag or callable(one.default) else f"`{one.default}`"
