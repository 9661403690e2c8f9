"""The observer of a body receives every byte and how the reading ended, and the reader notices nothing."""

import asyncio
import datetime as dt
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from prela_stream.instrumentation.http.body import handled_exception, observe_body

CHUNKS = [b"one", b"two", b"three"]


class Observer:
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.ends: list[tuple[str | None, bool]] = []

    def chunk(self, data: bytes) -> None:
        self.data.append(data)

    def end(self, error: BaseException | None, *, read: bool) -> None:
        self.ends.append((None if error is None else type(error).__name__, read))


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that is sync and async at once, as httpx2's own ByteStream is."""

    elapsed = dt.timedelta(seconds=7)

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from CHUNKS
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            await asyncio.sleep(0)
            yield chunk

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def observed(body: Any) -> tuple[httpx2.Response, Observer]:
    response = httpx2.Response(200, stream=body)
    observer = Observer()
    observe_body(response, observer, reader=__name__.partition(".")[0])
    return response, observer


def test_read_to_the_end() -> None:
    body = Body()
    response, observer = observed(body)
    assert response.read() == b"".join(CHUNKS) == b"".join(observer.data)
    assert observer.ends[0] == (None, True)
    assert body.closed == 1


async def test_read_to_the_end_async() -> None:
    body = Body()
    response, observer = observed(body)
    assert await response.aread() == b"".join(CHUNKS) == b"".join(observer.data)
    assert observer.ends[0] == (None, True)
    assert body.closed == 1


def test_closed_unread() -> None:
    body = Body()
    response, observer = observed(body)
    response.close()
    assert (observer.data, observer.ends[0], body.closed) == ([], (None, False), 1)


def test_dropped_in_the_middle() -> None:
    response, observer = observed(Body())
    chunks = response.iter_bytes()
    next(chunks)
    del chunks, response
    gc.collect()
    assert observer.data == CHUNKS[:1]
    assert observer.ends[0] == (None, False)


def test_dropped_unread() -> None:
    response, observer = observed(Body())
    del response
    gc.collect()
    assert observer.ends == [(None, False)]


@pytest.mark.parametrize("error", [ConnectionError("gone"), KeyboardInterrupt()])
def test_broken_off(error: BaseException) -> None:
    response, observer = observed(Body(error))
    with pytest.raises(type(error)) as raised:
        response.read()
    assert raised.value is error
    assert observer.ends[0] == (type(error).__name__, False)


async def test_a_cancelled_reader_that_closes_on_its_way_out() -> None:
    response, observer = observed(Body())

    async def read() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await response.aclose()

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.ends[0] == ("CancelledError", False)


class Reader:
    """Reads a response as a client library does: closes it when it fails."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response

    def read(self) -> None:
        chunks = self.response.iter_bytes()
        try:
            for _ in chunks:
                msg = "cannot be parsed"
                raise ValueError(msg)
        finally:
            self.response.close()


def test_an_error_of_the_reader_is_the_reason() -> None:
    response, observer = observed(Body())
    with pytest.raises(ValueError, match="cannot be parsed"):
        Reader(response).read()
    assert observer.ends[0] == ("ValueError", False)


def test_an_error_of_the_application_is_not() -> None:
    response, observer = observed(Body())
    try:
        raise ValueError
    except ValueError:
        response.close()
    assert observer.ends[0] == (None, False)


def test_an_error_of_the_reader_for_another_response_is_not() -> None:
    response, observer = observed(Body())
    other, _ = observed(Body())
    try:
        Reader(other).read()
    except ValueError:
        response.close()
    assert observer.ends[0] == (None, False)


def test_a_close_without_any_error_has_no_reason() -> None:
    assert handled_exception(object(), "") is None


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, asyncio.CancelledError])
def test_a_dropped_generator_has_the_interrupt_that_dropped_it_as_its_reason(interrupt: type[BaseException]) -> None:
    response, observer = observed(Body())
    chunks: Any = response.stream.__iter__()  # type: ignore[union-attr]  # it is a sync body
    next(chunks)
    try:
        raise interrupt
    except interrupt:
        chunks.close()
    assert observer.ends[0] == (interrupt.__name__, False)


@pytest.mark.parametrize("kinds", [(True, False), (False, True), (True, True)])
def test_the_type_and_the_other_attributes_of_the_body_stay(kinds: tuple[bool, bool]) -> None:
    both = (httpx2.SyncByteStream, httpx2.AsyncByteStream)
    bases = tuple(base for base, wanted in zip(both, kinds, strict=True) if wanted)
    body = type("OneKind", bases, {"elapsed": Body.elapsed})()
    response, _ = observed(body)
    stream: Any = response.stream
    assert (isinstance(stream, httpx2.SyncByteStream), isinstance(stream, httpx2.AsyncByteStream)) == kinds
    assert stream.elapsed == Body.elapsed
    with pytest.raises(AttributeError):
        _ = stream.no_such_thing


def test_a_body_of_another_library_is_left_as_it_is() -> None:
    response: Any = type("Response", (), {"stream": iter(CHUNKS)})()
    before = response.stream
    with pytest.raises(TypeError, match="httpx"):
        observe_body(response, Observer())
    assert response.stream is before
