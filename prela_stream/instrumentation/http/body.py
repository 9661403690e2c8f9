"""Watching the body of an HTTP response while its owner reads it: the one place where every kind of stream ends.

A client library reads a streamed answer in many ways: iterated, by helpers, raw, line by line, or not at all. All of them
read the byte stream of the response, so that is what is replaced: by one of the same kind that passes every byte on and
tells an observer how the reading went. Works for httpx and httpx2, sync and async, and imports neither.
"""

import functools
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Protocol


class BodyObserver(Protocol):
    """Learns of the bytes of a body and how their reading ended. Its methods never raise."""

    def chunk(self, data: bytes) -> None:
        """Bytes as they came over the wire, before content decoding."""
        ...

    def end(self, error: BaseException | None, *, read: bool) -> None:
        """The reading is over; called at least once, possibly more often: the first call counts.

        Args:
            error: What broke it off: the connection's error, or a cancellation.
            read: The body was read to its end. Without it and without an error, the reader stopped or dropped the body.
        """
        ...


class _ObservedBody:
    """Passes a body on and reports to the observer. Instances are of a subclass that is of the body's own kind too."""

    def __init__(self, body: Any, observer: BodyObserver) -> None:
        self._body = body
        self._observer = observer
        # The anthropic client asks its body for this with every event; a miss by way of __getattr__ costs 3 µs each time.
        self.stream_observer = getattr(body, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        # Clients look for more on a body than its protocol says: `elapsed`, or an observer of their own.
        if name.startswith("__") or name in ("_body", "_observer"):
            raise AttributeError(name)
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[bytes]:
        try:
            for data in self._body:
                self._observer.chunk(data)
                yield data
        except GeneratorExit:
            self._observer.end(interruption(), read=False)
            raise
        except BaseException as error:
            self._observer.end(error, read=False)
            raise
        self._observer.end(None, read=True)

    def close(self) -> None:
        self._observer.end(interruption(), read=False)
        self._body.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = self._body.__aiter__()
        try:
            async for data in chunks:
                self._observer.chunk(data)
                yield data
        except GeneratorExit:
            self._observer.end(interruption(), read=False)
            raise
        except BaseException as error:
            self._observer.end(error, read=False)
            raise
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()  # here, in the task that read it, and not later in one of the event loop's
        self._observer.end(None, read=True)

    async def aclose(self) -> None:
        self._observer.end(interruption(), read=False)
        await self._body.aclose()

    def __del__(self) -> None:
        # Dropped without being closed, maybe without ever being read: nobody else will end what the observer holds.
        observer = self.__dict__.get("_observer")
        if observer is not None and not sys.is_finalizing():
            observer.end(None, read=False)


def observe_body(response: Any, observer: BodyObserver) -> None:
    """Put an observer between the byte stream of this response (httpx or httpx2) and whoever reads it."""
    stream = response.stream
    kinds = tuple(base for base in type(stream).__mro__ if base.__name__ in ("SyncByteStream", "AsyncByteStream"))
    response.stream = _observed_type(kinds)(stream, observer)


@functools.cache
def _observed_type(kinds: tuple[type, ...]) -> type[_ObservedBody]:
    """Of the kinds of the body, as responses check with isinstance that theirs is a sync or an async one."""
    return type("ObservedBody", (_ObservedBody, *kinds), {})


def interruption() -> BaseException | None:
    """The cancellation or interrupt that is going through the caller at this moment, if there is one.

    A stream that is closed by `async with` says nothing of why. But while its exit runs, the exception that it leaves with is
    the one being handled, and that tells a cancelled task from a reader who had enough.
    """
    error = sys.exception()
    return None if error is None or isinstance(error, (Exception, GeneratorExit)) else error
