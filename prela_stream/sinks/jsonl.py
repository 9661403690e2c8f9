"""The JSONL sink: one JSON object for each kept trace, one line each, in files for DuckDB, jq and scripts.

A line has the fields of `_Line`; docs/sinks.md has an example. A file is followed by a new one when it is large or old enough.
The files of a process are complete and never change, except its newest one.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import anyio.to_thread
import msgspec

from prela_stream.errors import SinkError
from prela_stream.files import is_first_of_its_folder
from prela_stream.model.plain import plain, safe_text
from prela_stream.sinks.base import SinkBatch
from prela_stream.sinks.documents import decision_document, span_document
from prela_stream.sinks.kept_trace import KeptTrace
from prela_stream.transport.base import TopicPartition
from prela_stream.validation import bounded

logger = logging.getLogger(__name__)

_TIME: Final = "%Y%m%dT%H%M%SZ"
_TAIL_BLOCK: Final = 1 << 16
_encoder: Final = msgspec.json.Encoder(enc_hook=safe_text)


class JsonlOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the JSONL sink."""

    path: str = ".prela/jsonl"
    """Folder of the files; it is made if it is missing."""
    rotate_bytes: Annotated[int, bounded(1_000, 1 << 40)] = 64 << 20
    """A file that would become larger is followed by a new one, unless it is empty."""
    rotate_s: Annotated[float, bounded(1, 31_536_000)] = 3_600.0
    """A file that is older is followed by a new one at the next write."""


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    trace_id: str
    decision_id: str
    late: bool
    """The spans arrived after the decision; the trace itself is in an earlier line."""
    weight: float
    policy: str
    reason: str
    unreadable: int
    decision: dict[str, Any]
    spans: list[dict[str, Any]]


class JsonlSink:
    """Appends kept traces to files of lines. At least once, with stable ids.

    After a crash or a failed write the traces of the last batch may be in two lines. So identify a trace by `decision_id` and
    `late`, identify a span by `(trace_id, span_id)`, and take the ended report with the highest `revision`. A line is whole or
    absent: an incomplete line that a crash left is cut off at the next start. Processes that share a folder write separate files.

    Args:
        options: Where, and how large the files become. Nothing is opened before the first write.
        clock: Seconds since the epoch.
    """

    wants_decisions = False

    def __init__(self, options: JsonlOptions, *, clock: Callable[[], float] = time.time) -> None:
        self._options = options
        self._folder = Path(options.path).absolute()
        self._clock = clock
        self._lock = anyio.Lock()
        self._file = -1
        self._path = self._folder
        self._size = 0
        self._created_s = 0.0

    async def write(self, batch: SinkBatch) -> None:
        """Append the traces of the batch and flush them to the disk (fsync). Raises SinkError; then no line was added."""
        if batch.traces:
            async with self._lock:
                await anyio.to_thread.run_sync(self._append, batch)

    async def stored_offset(self, source: TopicPartition) -> int | None:  # noqa: ARG002 - of the interface
        """None: offsets are those of the consumer group."""
        return None

    async def aclose(self) -> None:
        """Close the file."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await anyio.to_thread.run_sync(self._close)

    def _append(self, batch: SinkBatch) -> None:
        lines = b"".join(map(_line, batch.traces))
        try:
            self._make_ready(len(lines))
            self._write_durably(lines)
        except OSError as error:
            self._close()
            msg = f"cannot write to {self._path}: {error.strerror or error}. Check its disk, its owner and its permissions"
            raise SinkError(msg) from error

    def _write_durably(self, lines: bytes) -> None:
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)  # else some lines of the batch would be there twice
            raise
        self._size += len(lines)
        if not self._is_same_file():
            raise FileNotFoundError(errno.ENOENT, "it was deleted or replaced during the write")

    def _make_ready(self, more: int) -> None:
        """Have a file open that takes `more` bytes."""
        if self._file >= 0 and not self._is_same_file():
            level = logging.WARNING if is_first_of_its_folder(self._folder) else logging.DEBUG
            logger.log(level, "%s was deleted or replaced; the sink continues in a new file", self._path)
            self._close()
        if self._file < 0:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._repair_and_continue()
        if self._file >= 0:
            self._size = os.fstat(
                self._file
            ).st_size  # another program may have truncated it, as `copytruncate` of logrotate
        if self._file >= 0 and not self._takes(more):
            self._close()
        if self._file < 0:
            self._create()

    def _takes(self, more: int) -> bool:
        too_large = self._size > 0 and self._size + more > self._options.rotate_bytes
        return not too_large and self._clock() - self._created_s < self._options.rotate_s

    def _is_same_file(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def _repair_and_continue(self) -> None:
        """Cut torn tails off the files that no process has open; the newest of them is continued."""
        for path in sorted(self._folder.glob("traces-*.jsonl")):
            file = os.open(path, os.O_RDWR | os.O_APPEND)
            if not _locked(file):
                os.close(file)
                continue
            if cut := _cut_torn_tail(file):
                logger.warning("cut %d bytes of an incomplete line off the end of %s, which a crash left", cut, path)
            self._close()
            self._file, self._path, self._size = file, path, os.fstat(file).st_size
            self._created_s = _created_s(path, self._clock())

    def _create(self) -> None:
        """Open a new file, which no other process has."""
        now = self._clock()
        moment = datetime.fromtimestamp(now, UTC).strftime(_TIME)
        number = 0
        while True:
            path = self._folder / f"traces-{moment}-{number:04d}.jsonl"
            try:
                file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                number += 1
                continue
            break
        if not _locked(file):  # a process that starts now repairs it first
            os.close(file)
            msg = f"{path} is locked by another process"
            raise BlockingIOError(msg)
        self._file, self._path, self._size, self._created_s = file, path, 0, now
        _sync_folder(self._folder)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _line(trace: KeptTrace) -> bytes:
    line = _Line(
        trace_id=trace.trace_id,
        decision_id=trace.decision.decision_id.hex(),
        late=trace.late,
        weight=trace.weight,
        policy=trace.decision.policy,
        reason=trace.decision.reason,
        unreadable=trace.unreadable,
        decision=decision_document(trace.decision),
        spans=[span_document(span) for span in trace.spans],
    )
    try:
        text = _encoder.encode(line)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):  # keys that are bytes, deep nesting
        spans = [
            {name: value if name == "resource" else plain(value) for name, value in span.items()} for span in line.spans
        ]
        text = _encoder.encode(msgspec.structs.replace(line, spans=spans))
    return text + b"\n"


def _created_s(path: Path, default: float) -> float:
    """When a file was created, by its name."""
    try:
        moment = datetime.strptime(path.name.split("-")[1], _TIME)
    except (IndexError, ValueError):
        return default
    return moment.replace(tzinfo=UTC).timestamp()


def _cut_torn_tail(file: int) -> int:
    """Cut off what follows the last line break; the number of bytes that were cut."""
    size = os.fstat(file).st_size
    end = 0
    for start, block in _blocks_backwards(file, size):
        if (found := block.rfind(b"\n")) >= 0:
            end = start + found + 1
            break
    if end < size:
        os.ftruncate(file, end)
        os.fsync(file)
    return size - end


def _blocks_backwards(file: int, size: int) -> Iterator[tuple[int, bytes]]:
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BLOCK)
        yield start, os.pread(file, end - start, start)
        end = start


if sys.platform == "win32":

    def _locked(file: int) -> bool:  # noqa: ARG001 - of the other platforms
        return True  # a folder belongs to one process there

    def _sync_folder(folder: Path) -> None:
        """Windows has no such thing."""

else:
    import fcntl

    def _locked(file: int) -> bool:
        """Whether this process has the file for itself, until it closes it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _sync_folder(folder: Path) -> None:
        """Make the name of a new file durable."""
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
