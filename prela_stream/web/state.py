"""What all pages share: the store, the pipeline, and whether the server stops."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from prela_stream.errors import ConfigurationError, PrelaError, QueryTimeoutError, ungrouped

if TYPE_CHECKING:
    from prela_stream.sinks.reader import TraceReader
    from prela_stream.web.api import PipelineSource

logger = logging.getLogger("prela_stream")

_TRACE_ID: Final = re.compile(r"[0-9a-f]{4,32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_QUERIES: Final = 8


class Pages:
    """The shared state of one application."""

    def __init__(self, *, reader: TraceReader, pipeline: PipelineSource | None) -> None:
        self._reader = reader
        self.pipeline = pipeline
        self.stopping = anyio.Event()
        """Set when the server stops; streams end then."""
        self._limit: anyio.CapacityLimiter | None = None
        self._failure = ""

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[TraceReader]:
        """The store, for the queries of one answer; few at a time, so that no reader keeps the store from the others.

        The first failure of the store is logged, and that it answers again.
        """
        if self._limit is None:
            self._limit = anyio.CapacityLimiter(_QUERIES)
        async with self._limit:
            try:
                with ungrouped(PrelaError):
                    yield self._reader
            except QueryTimeoutError:
                raise
            except PrelaError as error:
                if isinstance(error, ConfigurationError) and await self._answers():
                    raise  # the question was wrong
                if not self._failure:
                    logger.warning("web: %s", error)
                self._failure = str(error)
                raise StoreUnavailableError(str(error)) from error
        if self._failure:
            self._failure = ""
            logger.warning("web: the store answers again")

    async def _answers(self) -> bool:
        try:
            await self._reader.newest_mark()
        except PrelaError:
            return False
        return True


class StoreUnavailableError(PrelaError):
    """The store does not exist or cannot be read now. It may be created, or answer, at any time."""


def pages_of(request: Request) -> Pages:
    """The shared state of the application that answers this request."""
    found = request.app.state.pages
    assert isinstance(found, Pages)
    return found


def trace_id_of(request: Request) -> str:
    """The trace id of the path, or its first digits; 404 if it is something else."""
    return checked_trace_id(request.path_params["trace_id"])


def checked_trace_id(text: str) -> str:
    """A trace id, or its first digits; 404 if it is something else."""
    return _checked(text, _TRACE_ID, "a trace id is 32 hex digits, or at least the first 4")


def span_id_of(request: Request) -> str:
    """The span id of the path; 404 if it is something else."""
    return _checked(request.path_params["span_id"], _SPAN_ID, "a span id is 16 hex digits")


def _checked(text: str, form: re.Pattern[str], expected: str) -> str:
    if not form.fullmatch(text):
        raise HTTPException(404, expected)
    return text
