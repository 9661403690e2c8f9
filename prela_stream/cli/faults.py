"""How a command ends if something goes wrong: a sentence on standard error and an exit code, and no traceback unless asked for.

It does not need typer, so that a worker can start without it.
Exit codes: 0 done; 1 the answer is no, or the command failed; 2 wrong usage, settings or arguments; 130 stopped by Ctrl-C.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TextIO

from prela_stream.cli.consoles import note
from prela_stream.errors import ConfigurationError, PrelaError
from prela_stream.text import visible, without_credentials

NOT_FOUND: Final = 1
"""The answer is no: nothing was found, something is wrong."""
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130
_MOST_LINES: Final = 9
_RED: Final = "31"
_LONGEST_LINE: Final = 1_000
_TODO: Final = {
    errno.EACCES: "run the command as a user who may use it, or name another one",
    errno.EPERM: "run the command as a user who may use it, or name another one",
    errno.EROFS: "name a folder that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file, not a folder",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "free some space and run the command again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files of this machine",
    errno.EADDRINUSE: "choose another port, or end the program that uses it",
    errno.EPIPE: "the reader of the output ended before everything was written",
}
_OF_OUTPUT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG})


def run_and_exit(run: Callable[[], Any], *, shows_traceback: Callable[[], bool] = lambda: False) -> NoReturn:
    """Run a command line and exit with its code. Errors that `run` raises become sentences; Ctrl-C and an abort too."""
    for stream in (sys.stdout, sys.stderr):
        _write_anything(stream)
    try:
        code = run()
        if code == INTERRUPTED:  # while typer read the arguments
            raise KeyboardInterrupt
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise SystemExit(_failed(["stopped by Ctrl-C"], INTERRUPTED)) from None
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - the process ends here, with a code
        if shows_traceback():
            traceback.print_exc()
        raise SystemExit(_failed(list(dict.fromkeys(map(sentence, leaves(error)))), code_of(error))) from None
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def output_closed() -> Iterator[None]:
    """Report an output that its reader has closed as what it is."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        msg = f"standard output was closed: {_TODO[errno.EPIPE]}"
        raise PrelaError(msg) from error


def _failed(texts: list[str], code: int) -> int:
    with suppress(OSError, ValueError):  # standard error may be closed or full; then the code is all there is
        fail_line("\n".join(texts))
    for stream in (sys.stdout, sys.stderr):
        _discard_unwritten(stream)
    return code


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group of errors; an error that is no group itself."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


def code_of(error: BaseException) -> int:
    """2 for what the caller wrote, 1 for everything else."""
    wrong = all(isinstance(leaf, ConfigurationError | ModuleNotFoundError) or _is_usage(leaf) for leaf in leaves(error))
    return WRONG_USAGE if wrong else FAILED


def sentence(error: BaseException) -> str:
    """What happened and what to do, in one line for each mistake."""
    if isinstance(error, PrelaError):
        return str(error)
    if _is_usage(error):
        return _usage(error)
    if isinstance(error, OSError):
        return _operating_system(error)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("prela_stream"):
        return f"this command needs {error.name}, which is not installed: pip install 'prela-stream[cli]', or [all]"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply to be read; flatten it"
    if isinstance(error, MemoryError):
        return "out of memory; use a machine or a container with more, or read fewer traces (--limit)"
    if isinstance(error, UnicodeError):
        return f"text cannot be written or read in this encoding: {error}; set PYTHONIOENCODING=utf-8"
    found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected {found}. This is a defect of prela-stream; run the command again with --debug and report its output"


def _is_usage(error: BaseException) -> bool:
    """Whether it is the error of click for a wrong command line. Some versions of typer contain a copy of click."""
    return callable(getattr(error, "format_message", None)) and getattr(error, "exit_code", None) == WRONG_USAGE


def _usage(error: Any) -> str:
    ctx = getattr(error, "ctx", None)
    path, usage = ("prela-stream", "") if ctx is None else (ctx.command_path, " ".join(ctx.get_usage().split()) + "\n")
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
        return f"{usage}a command is missing; `{path} --help` lists what it takes"
    text = " ".join(str(error.format_message()).replace("Value error, ", "").split()).rstrip(".")
    return f"{usage}{text[:1].lower()}{text[1:] or 'a command is missing'}; `{path} --help` lists what it takes"


def _operating_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if not error.filename and error.errno == errno.ENOENT:
        return "the working directory does not exist any more; change to one that does"
    if not error.filename and error.errno in _OF_OUTPUT:
        reason = f"standard output cannot be written: {reason}"
    names = [
        os.fspath(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)
    ]
    place = "".join(f": {_absolute(name)}" for name in names)
    todo = _TODO.get(error.errno or 0, "correct this and run the command again")
    return f"{reason[:1].lower()}{reason[1:]}{place}; {todo}"


def _absolute(name: str | bytes) -> str:
    with suppress(OSError):
        name = os.path.abspath(name)  # noqa: PTH100 - of text or bytes, and it may not exist
    return os.fsdecode(name)


def fail_line(text: str) -> None:
    """An error on standard error, in red: at most ten lines, without credentials and invisible characters."""
    lines = visible(without_credentials(text)).splitlines() or [""]
    if len(lines) > _MOST_LINES + 1:
        lines = [*lines[:_MOST_LINES], f"  … and {len(lines) - _MOST_LINES} more; correct these first"]
    cut = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in lines]
    note("\n".join(cut), _RED)


def _write_anything(stream: TextIO | None) -> None:
    """Let a stream escape what its encoding does not have instead of raising."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        with suppress(OSError, ValueError):
            reconfigure(errors="backslashreplace")


def _discard_unwritten(stream: TextIO | None) -> None:
    """Write out what is buffered; if that fails, drop it, because the interpreter would fail with it again as it ends."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
