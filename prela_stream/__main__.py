"""The entry of `prela-stream` and `python -m prela_stream`. Says what to install where the command line's extra is missing."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from prela_stream.cli.main import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write(
            f"prela-stream: the command line needs {error.name}, which is not installed: pip install 'prela-stream[cli]'\n"
        )
        sys.exit(2)
    app(prog_name="prela-stream")


if __name__ == "__main__":
    main()
