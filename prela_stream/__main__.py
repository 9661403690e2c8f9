"""The entry of `prela-stream` and `python -m prela_stream`. Without the extra `cli` it reports what to install."""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        from prela_stream.cli.working import worker_start

        start = worker_start(sys.argv[1:])
        if start is not None:
            start()
        else:
            from prela_stream.cli.main import app

            app(prog_name="prela-stream")
    except ModuleNotFoundError as error:
        if "--debug" in sys.argv:
            raise
        _end(
            f"prela-stream: the command line needs {error.name}, which is not installed: pip install 'prela-stream[cli]'",
            2,
        )
    except KeyboardInterrupt:  # while modules were imported; afterwards cli.faults reports it
        _end("stopped by Ctrl-C", 130)
    finally:
        # The end of the interpreter would print the traceback of another interrupt.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(0)


def _end(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
