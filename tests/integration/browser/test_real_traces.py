"""Traces of real agents and of other tools, as the pipeline stores them: each is walked from the list to every span and back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest
from playwright.sync_api import Browser, Page, expect

from prela_stream import demo
from prela_stream.app import open_reader, run_dev
from prela_stream.app.importing import ImportedFile, import_spans, read_import
from prela_stream.config import load_settings
from prela_stream.errors import PrelaError
from tests.support.browser import Visit, apart, serious_violations, site
from tests.support.foreign_files import FILES
from tests.support.processes import DEADLINE

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHARED: Final = Path(__file__).resolve().parents[4] / "shared" / "traces"
_OF_ONE_SPAN: Final = "map-"
"""Files with the attributes of one span, which no command imports."""
OTHERS: Final = {
    path.name: path
    for path in sorted(SHARED.glob("*.*"))
    if path.suffix in (".json", ".jsonl", ".traj") and not path.name.startswith(_OF_ONE_SPAN)
}
"""Traces of other people's systems, where they are there."""


def imported() -> dict[str, ImportedFile]:
    """Every file, read as `prela-stream import` reads it."""
    made = {name: read_import(name, json.dumps(document()).encode()) for name, document in FILES.items()}
    return made | {name: read_import(name, path.read_bytes()) for name, path in OTHERS.items()}


def environment(folder: Path) -> dict[str, str]:
    """Settings of a pipeline that keeps every trace, and waits for nothing that will not come."""
    (folder / "all.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n')
    waits = ("OTLP_ROOT_WAIT", "ROOT_WAIT", "REMOTE_WAIT", "IDLE", "IDLE_WITHOUT_HEARTBEATS", "SETTLE")
    return {
        "PRELA_DIRECTORY": str(folder / "prela"),
        "PRELA_POLICIES_FILE": str(folder / "all.toml"),
        "PRELA_SINK": '[{"retention_days": 0}]',
        "PRELA_OTLP_LISTEN": "off",
        "PRELA_OTLP_GRPC_LISTEN": "off",
        "PRELA_WEB_LISTEN": "off",
        **{f"PRELA_ASSEMBLY_{name}_MS": "300" for name in waits},
    }


async def store(folder: Path, files: dict[str, ImportedFile]) -> None:
    """Append the spans to the log, and run the pipeline until each of their traces is stored."""
    settings = load_settings(env=environment(folder))
    spans = [span for file in files.values() for span in file.spans]
    await import_spans(settings, spans)
    missing = {span.trace_id.hex() for span in spans}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_dev, settings)
        with anyio.fail_after(DEADLINE):
            while missing:
                await anyio.sleep(0.05)
                try:
                    async with open_reader(settings) as reader:
                        missing -= {row.trace_id for row in await reader.tail(0, limit=1_000)}
                except PrelaError:  # there is no store yet
                    continue
        tasks.cancel_scope.cancel()


@pytest.fixture(scope="module")
def files() -> dict[str, ImportedFile]:
    return imported()


@pytest.fixture(scope="module")
def files_url(files: dict[str, ImportedFile], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("files")
    apart(lambda: store(folder, files))
    with site(folder / "prela" / "traces.db") as url:
        yield url


def walk(page: Page, url: str, trace_id: str, *, axe: bool = True) -> int:
    """From the list to a trace, to each of its spans, to the transcript, and back to the list; how many spans it has.

    Args:
        page: Any page of the site.
        url: Of the site.
        trace_id: 32 hex digits.
        axe: Whether the accessibility of the trace page is checked.
    """
    page.goto(f"{url}/?sort=oldest")
    page.locator(f'tr[data-href="/traces/{trace_id}"] .c-name a').first.click()
    page.wait_for_url(f"**/traces/{trace_id}")
    while (folds := page.locator('.row.fold[aria-expanded="false"]:visible')).count():
        folds.first.click()
    spans: list[str] = page.locator(".row:not(.fold):not(.missing)").evaluate_all("rows => rows.map((row) => row.id)")
    for one in spans:
        page.locator(f"#{one} .n a").click()
        page.locator(f'#detail [data-span="{one[1:]}"]').wait_for()
    assert not axe or serious_violations(page) == []
    page.keyboard.press("t")
    page.wait_for_url("**/transcript")
    page.locator(".transcript").wait_for()
    page.go_back()
    page.wait_for_url(f"**/traces/{trace_id}?span={spans[-1][1:]}")
    page.locator(f'#detail [data-span="{spans[-1][1:]}"]').wait_for()
    page.get_by_role("link", name="Back to the list").click()
    page.wait_for_url(f"{url}/**")
    expect(page.locator("#traces")).to_be_visible()
    return len(spans)


@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_an_imported_trace_can_be_read_to_its_last_span(
    browser: Browser, files: dict[str, ImportedFile], files_url: str, name: str
) -> None:
    file = files[name]
    assert file.rejected == []
    traces: dict[str, set[bytes]] = {}
    for span in file.spans:
        traces.setdefault(span.trace_id.hex(), set()).add(span.span_id)
    assert traces
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        visit = Visit(context, files_url)
        for at, (trace_id, ids) in enumerate(traces.items()):
            assert walk(visit.page, files_url, trace_id, axe=at == 0) == len(ids)
        assert visit.problems == []


def test_every_trace_of_the_demo_can_be_read_to_its_last_span(browser: Browser, tmp_path: Path) -> None:
    settings = load_settings(env=environment(tmp_path))
    ran = []

    async def run() -> None:
        ran.append(await demo.run(settings, runs=9))

    apart(run)
    assert ran[0].kept == 9
    with (
        site(Path(settings.directory) / "traces.db") as url,
        browser.new_context(viewport={"width": 1280, "height": 800}) as context,
    ):
        visit = Visit(context, url)
        page = visit.open("/")
        links = page.locator("#traces tr[data-href]")
        found = [
            str(one).rsplit("/", 1)[-1] for one in links.evaluate_all("rows => rows.map((row) => row.dataset.href)")
        ]
        assert len(found) == 9
        assert sum(walk(page, url, trace_id, axe=trace_id == found[0]) for trace_id in found) == ran[0].kept_spans
        assert visit.problems == []
