"""Observes the body of an HTTP response while its owner reads it.

A client library reads a streamed answer in many ways: iterated, by helpers, raw, line by line, or not at all. All of them
read the byte stream of the response, so this stream is replaced by one of the same type that passes every byte on and reports
to an observer how the reading ended. Works for httpx and httpx2, sync and async, and imports neither.
"""

import functools
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Final, Protocol

from prela_stream.errors import guard

_guard: Final = guard("instrumentation.body")


class BodyObserver(Protocol):
    """Receives the bytes of a body and how the reading ended. Its methods never raise."""

    def chunk(self, data: bytes) -> None:
        """Bytes as received, before content decoding."""
        ...

    def end(self, error: BaseException | None, *, read: bool) -> None:
        """The reading has ended. Called at least once; the first call counts.

        Args:
            error: The exception that ended the reading or is being handled while the body is closed. It may come from the
                connection, from the library that reads, from the application, or be a cancellation.
            read: The body was read to its end. If False without an error, the reader stopped early or dropped the body.
        """
        ...


class _ObservedBody:
    """Passes a body on and reports to the observer. Instances belong to a subclass that also has the body's own type."""

    def __init__(self, body: Any, observer: BodyObserver, reader: str) -> None:
        self._body = body
        self._observer = observer
        self._reader = reader
        # The anthropic client reads this attribute for every event; a miss by way of __getattr__ costs 3 µs each time.
        self.stream_observer = getattr(body, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        # Clients read more from a body than its protocol has, such as `elapsed`.
        if name.startswith("__") or name in ("_body", "_observer", "_reader"):
            raise AttributeError(name)
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[bytes]:
        with _Reading(self):
            for data in self._body:
                self._observer.chunk(data)
                yield data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _Reading(self):
            chunks = self._body.__aiter__()
            try:
                async for data in chunks:
                    self._observer.chunk(data)
                    yield data
            finally:
                if isinstance(chunks, AsyncGenerator):
                    await (
                        chunks.aclose()
                    )  # in the task that read it; otherwise the event loop closes it in another task

    def close(self) -> None:
        self._end_closed()
        self._body.close()

    async def aclose(self) -> None:
        self._end_closed()
        await self._body.aclose()

    def _end_closed(self) -> None:
        error: BaseException | None = None
        with _guard:
            error = handled_exception(self, self._reader)
        self._observer.end(error, read=False)

    def __del__(self) -> None:
        # The body was dropped and never closed, perhaps never read; no other code ends what the observer holds.
        observer = self.__dict__.get("_observer")
        if observer is not None and not sys.is_finalizing():
            observer.end(None, read=False)


class _Reading:
    """Reports how an iteration over a body ended."""

    __slots__ = ("_body",)

    def __init__(self, body: _ObservedBody) -> None:
        self._body = body

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, GeneratorExit):
            self._body._end_closed()
        else:
            self._body._observer.end(error, read=error is None)


def observe_body(response: Any, observer: BodyObserver, *, reader: str = "") -> None:
    """Put an observer between the byte stream of this response (httpx or httpx2) and its reader.

    Args:
        response: With a body that is not read yet.
        observer: Receives bytes and the end.
        reader: Top-level module of the library that reads the body. An exception that it raises for what it reads is reported
            as the end; an exception of the application, which only happens to be handled while the body is closed, is not.

    Raises:
        TypeError: The response has no such stream, so it is left as it is.
    """
    stream = response.stream
    kinds = tuple(base for base in type(stream).__mro__ if base.__name__ in ("SyncByteStream", "AsyncByteStream"))
    if not kinds:
        msg = f"the body of a response is a byte stream of httpx or httpx2, got {type(stream).__name__}"
        raise TypeError(msg)
    response.stream = _observed_type(kinds)(stream, observer, reader)


@functools.cache
def _observed_type(kinds: tuple[type, ...]) -> type[_ObservedBody]:
    """A subclass with the types of the body, because a response checks by isinstance that its body is sync or async."""
    return type("ObservedBody", (_ObservedBody, *kinds), {})


def handled_exception(body: object, reader: str) -> BaseException | None:
    """The exception because of which `body` is being closed; None if it is closed for no such reason.

    `close()` has no argument for the reason. But while `async with` or `finally` closes a body because of an exception, that
    exception is the one being handled. If a generator is closed, it is the context of its GeneratorExit. A cancellation or
    an interrupt always counts. Another exception counts if the reading library raised it for this body.
    """
    error = sys.exception()
    while isinstance(error, GeneratorExit):
        error = error.__context__
    if isinstance(error, Exception) and not _was_reading(error.__traceback__, body, reader):
        return None
    return error


def _was_reading(traceback: TracebackType | None, body: object, reader: str) -> bool:
    """Whether a method of the library on this body's response, or on a stream of it, is among the frames."""
    while traceback is not None:
        frame = traceback.tb_frame
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == reader:
            owner = frame.f_locals.get("self")
            for name in ("response", "http_response"):
                if getattr(getattr(owner, name, None), "stream", None) is body:
                    return True
        traceback = traceback.tb_next
    return False
