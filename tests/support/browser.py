"""A real Chromium, the pages on a real server, and what a page did: its console, its failed and its foreign requests."""

import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import anyio
import anyio.from_thread
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.web.api import PipelineSource
from prela_stream.web.options import WebOptions
from prela_stream.web.server import served

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
DEADLINE_MS: Final = 60_000
expect.set_options(timeout=DEADLINE_MS)  # the default of 5 s is too short on a busy machine


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Without it the test is skipped; with `CI=true` it fails."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        reason = "Chromium is missing: apt-get install chromium. NO PAGE IS TESTED IN A BROWSER"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def site(store: Path, pipeline: PipelineSource | None = None) -> Iterator[str]:
    """The pages of a store, and of a pipeline, served in a thread; the URL."""
    ready = threading.Event()
    found: list[Any] = []

    async def serve() -> None:
        stop = anyio.Event()
        async with (
            SqliteReader(SqliteOptions(path=str(store))) as reader,
            served(reader, WebOptions(listen="127.0.0.1:0"), pipeline) as url,
            anyio.from_thread.BlockingPortal() as portal,
        ):
            found.extend((url, portal, stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        found[1].start_task_soon(found[2].set)
        thread.join(30)
    assert not thread.is_alive()


def apart(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in another thread: Playwright keeps an event loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, work).result()


class Visit:
    """A page that is watched: `problems` has everything that a reader would not want."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        context.set_default_timeout(DEADLINE_MS)
        self.url = url
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.page.on(
            "console", lambda one: self._report("console", one.text) if one.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self._report("error", str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda one: self._check_host(one.url))

    def _report(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text}")

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left while it loaded
            self._report("failed", f"{request.url} {request.failure}")

    def _check_host(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc and not url.startswith(("data:", "blob:")):
            self._report("foreign request", url)

    def open(self, path: str) -> Page:
        """Open a path of the site."""
        self.page.goto(self.url + path)
        return self.page


def serious_violations(page: Page) -> list[str]:
    """What axe finds wrong with the accessibility of a page, of the impacts serious and critical."""
    from axe_playwright_python.sync_playwright import Axe

    results = cast("dict[str, Any]", Axe().run(page).response)
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in results["violations"]
        if one["impact"] in ("serious", "critical")
    ]
