"""`prela-stream topics …`: create the topics of a prefix, and check those that exist."""

import typer

from prela_stream import app as root
from prela_stream.cli import formats
from prela_stream.cli.consoles import messages, print_json
from prela_stream.cli.faults import NOT_FOUND, fail_line
from prela_stream.cli.options import Options, command, command_group
from prela_stream.cli.running import ask
from prela_stream.transport.topics import merge_mistakes

app = command_group("Create and check the topics.")


def create_command(options: Options) -> None:
    """Create the topics that are missing; existing ones are not changed. Exit code 1 if an existing topic is wrong."""
    settings = options.settings()
    created, mistakes = ask(lambda: root.ensure_topics(settings))
    if options.as_json:
        print_json(formats.to_json({"created": created, "mistakes": mistakes}))
    else:
        messages().print(f"created {', '.join(created)}" if created else "every topic exists already")
        _report(mistakes)
    if mistakes:
        raise typer.Exit(NOT_FOUND)


def check_command(options: Options) -> None:
    """Check that the topics exist with the right partitions and configuration. Exit code 1 if not."""
    settings = options.settings()
    mistakes = ask(lambda: root.check_topics(settings))
    if options.as_json:
        print_json(formats.to_json({"ok": not mistakes, "mistakes": mistakes}))
    else:
        _report(mistakes)
        if not mistakes:
            messages().print(f"the topics of prefix {settings.topics.prefix} are correct")
    if mistakes:
        raise typer.Exit(NOT_FOUND)


command(app, "create")(create_command)
command(app, "check")(check_command)


def _report(mistakes: list[str]) -> None:
    for line in merge_mistakes(mistakes):
        fail_line(line)
