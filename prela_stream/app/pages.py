"""Serves the web page on the store of the settings: alone (`web`), and beside worker and sinks (`dev`)."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from prela_stream.app.adapters import open_reader
from prela_stream.errors import ConfigurationError

if TYPE_CHECKING:
    from prela_stream.config import Settings

logger = logging.getLogger("prela_stream")

_NEEDED: Final = ("starlette", "uvicorn", "jinja2", "markdown_it", "nh3")


async def run_web(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve the page until cancelled.

    Args:
        settings: Everything.
        on_ready: Called once, with the URL.

    Raises:
        ConfigurationError: `web.listen` is off or cannot be used, the extra `web` is not installed, or no sink can be read.
    """
    if settings.web.is_off:
        msg = "web.listen: expected HOST:PORT, for example 127.0.0.1:8787, got none"
        raise ConfigurationError(msg)
    if missing := _missing():
        msg = f"the web page needs {' and '.join(missing)}, not installed here: pip install 'prela-stream[web]'"
        raise ConfigurationError(msg)
    async with _served(settings, search_port=False) as url:
        if on_ready is not None:
            on_ready(url)
        await anyio.sleep_forever()


@asynccontextmanager
async def page_beside(settings: Settings) -> AsyncIterator[str | None]:
    """Serve the page for the length of the block, on one of the next ports if its port is in use.

    Yields its URL; None if there is no page, because `web.listen` is off, or with one log line because the extra `web` is not
    installed, no sink can be read or the address cannot be used.
    """
    if settings.web.is_off:
        yield None
        return
    if missing := _missing():
        logger.info("no web page: %s not installed here: pip install 'prela-stream[web]'", " and ".join(missing))
        yield None
        return
    page = _served(settings, search_port=True)
    try:
        url = await page.__aenter__()
    except ConfigurationError as error:
        logger.warning("no web page: %s", error)
        yield None
        return
    try:
        yield url
    finally:
        await page.__aexit__(None, None, None)  # an error of the block passes as it is, not in a group


@asynccontextmanager
async def _served(settings: Settings, *, search_port: bool) -> AsyncIterator[str]:
    from prela_stream.app.pipeline_state import PipelineState
    from prela_stream.web.server import served

    async with (
        open_reader(settings) as reader,
        served(reader, settings.web, PipelineState(settings), search_port=search_port) as url,
    ):
        yield url


def _missing() -> list[str]:
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]
