"""A group of commands of which every error becomes a sentence and an exit code."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from typer import Abort
from typer.core import TyperGroup

from prela_stream.cli.faults import output_closed, run_and_exit
from prela_stream.cli.values import convert_here


class Group(TyperGroup):
    """A command group of which every error becomes a sentence and an exit code."""

    debug = False
    """Whether `--debug` was given: then the traceback is printed too."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit with its code; with `standalone_mode=False`, return and raise as typer does."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        self.debug = False

        def run_with_aborts() -> Any:
            try:
                return run()
            except Abort:
                raise KeyboardInterrupt from None

        return run_and_exit(run_with_aborts, shows_traceback=lambda: self.debug)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of the group."""
        return convert_here(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Errors that typer would answer with only an exit code are raised in a form that is reported."""
        try:
            with output_closed():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Abort from None
