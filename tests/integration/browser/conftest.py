"""One Chromium and one site with all the difficult traces for the whole folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from prela_stream.sinks.sqlite.options import SqliteOptions
from tests.support import page_traces as made
from tests.support.browser import Visit, apart, chromium, site


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "traces.db"
    dropped = [made.dropped_decision(0x2001)]
    apart(lambda: made.fill(SqliteOptions(path=str(path)), made.kept_traces(), dropped))
    return path


@pytest.fixture(scope="session")
def site_url(store_path: Path) -> Iterator[str]:
    with site(store_path) as url:
        yield url


@pytest.fixture
def visit(browser: Browser, site_url: str) -> Iterator[Visit]:
    """A window of 1,280 by 800 pixels. Fails if the page reported an error or asked another host for anything."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        found = Visit(context, site_url)
        yield found
        assert found.problems == []
