"""The pages in a real browser, as a reader uses them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from prela_stream.app.pipeline_state import PipelineState
from prela_stream.config import load_settings
from prela_stream.model.decision import Trigger
from prela_stream.sinks.sqlite.options import SqliteOptions
from tests.support import page_traces as made
from tests.support.browser import Visit, apart, serious_violations, site
from tests.support.kept import trace_id
from tests.support.running_pipeline import environment

OPEN_AGENT = """
import sys
import prela_stream as prela
prela.init()
with prela.get_tracer().span("waits for a person", span_type=prela.SpanType.AGENT):
    with prela.get_tracer().span("draft"):
        pass
    sys.stdin.read()
"""

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHAT = f"/traces/{trace_id(made.CHAT)}"
SOME = {
    "list": "/",
    "dropped": "/?dropped=1",
    "trace": f"{CHAT}?span={5:016x}",
    "transcript": f"{CHAT}/transcript",
    "hostile": f"/traces/{trace_id(made.HOSTILE)}?span={2:016x}",
    "rootless": f"/traces/{trace_id(made.ROOTLESS)}",
    "two days": f"/traces/{trace_id(made.TWO_DAYS)}",
    "decision": f"/traces/{trace_id(0x2001)}",
    "span": f"{CHAT}/spans/{5:016x}",
    "diff": f"/diff?a={trace_id(made.CHAT)}&b={trace_id(made.CHAT_AGAIN)}",
    "choose": f"/diff?a={trace_id(made.CHAT)}",
    "live": "/live",
    "sessions": "/sessions",
    "session": "/sessions/view?id=session-7",
    "models": "/models",
    "pipeline": "/pipeline",
}


def test_from_the_list_through_a_filter_to_a_message_and_back(visit: Visit) -> None:
    page = visit.open("/")
    page.locator("#filters select[name=status]").select_option("error")
    page.wait_for_url("**/?*status=error*")
    expect(page.locator("#traces tbody tr")).to_have_count(3)
    page.get_by_role("link", name="trip", exact=True).click()
    page.wait_for_url("**/traces/*")
    expect(page.locator(".row.error")).to_have_count(1)
    page.locator(".row.llm").last.click()
    detail = page.locator("#detail")
    expect(detail.get_by_role("heading", name="chat model-a")).to_be_visible()
    expect(detail.locator(".message.answer")).to_contain_text("A trip to Porto is 120 €.")
    expect(page).to_have_url(re.compile(rf"span={5:016x}"))
    detail.get_by_role("link", name="json", exact=True).click()
    expect(detail.locator(".message.answer pre.json")).to_contain_text('"kind": "text"')
    detail.locator("summary", has_text="earlier message").click()
    expect(detail.locator(".history .message.user")).to_be_visible()
    page.get_by_role("link", name="Back to the list").click()
    page.wait_for_url("**/?*status=error*")


def test_a_link_to_a_span_opens_it(visit: Visit) -> None:
    page = visit.open(f"{CHAT}?span={3:016x}")
    expect(page.locator("#detail h2")).to_have_text("execute_tool prices")
    expect(page.locator('[aria-selected="true"]')).to_have_attribute("id", f"s{3:016x}")


def test_the_keyboard_moves_collapses_searches_and_opens(visit: Visit) -> None:
    page = visit.open(CHAT)
    rows = page.locator(".row:visible")
    before = rows.count()
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowLeft")
    expect(rows).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(rows).to_have_count(before)
    page.locator(".row.fold").click()
    expect(rows).to_have_count(before + 7)
    page.keyboard.press("/")
    page.keyboard.type("prices")
    expect(page.locator("#found")).to_have_text("2")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#detail h2")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    page.keyboard.press("l")
    page.wait_for_url("**view=logical*")
    expect(page.locator(".row.custom")).to_have_count(0)
    page.keyboard.press("t")
    page.wait_for_url("**/transcript")
    expect(page.locator(".transcript")).to_contain_text("A trip to Lisbon")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def wait_for_all_rows(page: Page) -> None:
    """Wait until the script has loaded what a long page leaves out; `expect` would describe the whole page at each try."""
    page.locator("#rest").wait_for(state="detached")


def test_e_finds_the_failed_span_among_five_thousand(visit: Visit) -> None:
    page = visit.open(f"/traces/{trace_id(made.MANY)}")
    wait_for_all_rows(page)
    expect(page.locator(".row")).to_have_count(5_000)
    page.keyboard.press("e")
    expect(page.locator(".row.at")).to_have_class(re.compile("error"))
    expect(page.locator(".row.at")).to_be_in_viewport()
    page.get_by_role("button", name="collapse all").click()
    expect(page.locator(".row:not([hidden])")).to_have_count(1)


def test_a_link_to_a_late_row_of_a_long_trace_shows_it(visit: Visit) -> None:
    page = visit.open(f"/traces/{trace_id(made.MANY)}?span={4_321:016x}")
    page.locator("#detail h2").wait_for()
    wait_for_all_rows(page)
    expect(page.locator(".row.at")).to_have_id(f"s{4_321:016x}")
    expect(page.locator(".row.at")).to_be_in_viewport()
    page.locator("#find").fill("step 4991")
    expect(page.locator("#found")).to_have_text("1")


def test_a_brush_on_the_latency_narrows_the_list(visit: Visit) -> None:
    page = visit.open("/")
    chart = page.locator('[data-brush="duration"] svg')
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20, steps=4)
    page.mouse.up()
    page.wait_for_url("**min=*max=*")
    expect(page.locator("#traces tbody")).to_contain_text("two days")
    expect(page.locator("#traces tbody")).not_to_contain_text("trip")


def test_hostile_text_runs_nothing(visit: Visit) -> None:
    for path in ("/", SOME["hostile"], f"/traces/{trace_id(made.HOSTILE)}/transcript", "/live", "/sessions", "/models"):
        page = visit.open(path)
        page.wait_for_load_state("networkidle" if path != "/live" else "load")
        assert "owned" not in (page.title() if "onerror" not in page.title() else "")
        assert page.evaluate("document.querySelectorAll('main img, main script, main style').length") == 0
    page = visit.open(SOME["hostile"])
    expect(page.locator("#detail .message").first).to_contain_text("\\u202e")


def test_a_megabyte_is_shown_in_part(visit: Visit) -> None:
    page = visit.open(f"/traces/{trace_id(made.MEGABYTE)}?span={2:016x}")
    expect(page.locator("#detail .message.user .more")).to_contain_text("1,000,000 characters")


def test_a_live_tail_shows_new_traces_and_pauses(browser: Browser, tmp_path: Path) -> None:
    options = SqliteOptions(path=str(tmp_path / "live.db"))
    first = made.trace(made.CHAT, made.chat(made.CHAT, "Lisbon"), root_name="first")
    second = made.trace(made.CHAT_AGAIN, made.chat(made.CHAT_AGAIN, "Porto"), root_name="second")
    third = made.trace(made.LOST, made.still_open(made.LOST), root_name="third")
    apart(lambda: made.fill(options, [first]))
    with site(tmp_path / "live.db") as url, browser.new_context() as context:
        visit = Visit(context, url)
        page = visit.open("/live")
        expect(page.locator("#pulse.on")).to_be_visible()
        expect(page.locator("#live-rows tr")).to_have_count(1)
        apart(lambda: made.fill(options, [first, second]))
        expect(page.locator("#live-rows tr")).to_have_count(2)
        expect(page.locator("#live-rows tr").first).to_contain_text("second")
        page.get_by_role("button", name="Pause").click()
        apart(lambda: made.fill(options, [first, second, third]))
        expect(page.locator("#live-rows tr")).to_have_count(2)
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#live-rows tr").first).to_contain_text("third")
        page.goto("about:blank")
        assert visit.problems == []


def test_a_running_trace_ticks_until_it_is_decided(browser: Browser, tmp_path: Path) -> None:
    env = environment(tmp_path, tmp_path / "prela")
    settings = load_settings(env=env)
    lost = made.trace(
        made.LOST, made.still_open(made.LOST), root_name="lost agent", trigger=Trigger.LOST, complete=False
    )
    apart(lambda: made.fill(SqliteOptions(path=str(tmp_path / "live.db")), [lost]))
    agent = subprocess.Popen([sys.executable, "-c", OPEN_AGENT], stdin=subprocess.PIPE, env={**os.environ, **env})
    try:
        with site(tmp_path / "live.db", PipelineState(settings)) as url, browser.new_context() as context:
            visit = Visit(context, url)
            page = visit.open("/live")
            one = page.locator("#running li.running")
            one.get_by_text("waits for a person").wait_for()
            age = one.locator("[data-age]")
            expect(age).not_to_have_text(age.inner_text())
            expect(page.locator("#live-rows")).to_contain_text("lost agent")
            page.goto(f"{url}/traces/{trace_id(made.LOST)}")
            expect(page.locator(".states .bad")).to_contain_text("lost")
            expect(page.locator(".row.pending")).to_have_count(2)
            assert visit.problems == []
    finally:
        agent.kill()
        agent.communicate()


def test_ids_and_spans_are_copied(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=visit.url)
    page = visit.open(f"{CHAT}?span={3:016x}")
    page.locator("#detail h2").wait_for()
    page.locator("[data-copy]").click()
    expect(page.locator("#toast.on")).to_have_text("id copied")
    assert page.evaluate("navigator.clipboard.readText()") == trace_id(made.CHAT)
    page.get_by_role("button", name="copy JSON").click()
    expect(page.locator("#toast.on")).to_have_text("JSON copied")
    assert '"execute_tool prices"' in page.evaluate("navigator.clipboard.readText()")


def test_the_last_of_many_clicks_is_shown(visit: Visit) -> None:
    page = visit.open(CHAT)
    for name in ("trip", "execute_tool prices", "GET /prices", "chat model-a"):
        page.locator(".row .n a", has_text=name).last.click()
    expect(page.locator("#detail h2")).to_have_text("chat model-a")
    expect(page).to_have_url(re.compile(rf"span={5:016x}"))


def test_two_traces_are_compared(visit: Visit) -> None:
    page = visit.open(CHAT)
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("link", name=trace_id(made.CHAT_AGAIN)[:12]).click()
    expect(page.locator(".changes li.changed")).to_have_count(1)
    expect(page.locator(".changes li.changed")).to_contain_text("execute_tool prices")
    page.get_by_role("link", name="only changes").click()
    expect(page.locator(".changes li")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, site_url: str, scheme: str) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme) as context:  # type: ignore[arg-type]
        visit = Visit(context, site_url)
        found = {}
        for name, path in SOME.items():
            page = visit.open(path)
            if "span=" in path:
                expect(page.locator("#detail h2")).to_be_visible()
            if wrong := serious_violations(page):
                found[name] = wrong
        assert found == {}
        page.goto("about:blank")


@pytest.mark.parametrize("width", [360, 768, 2560])
def test_no_page_is_wider_than_its_window(browser: Browser, site_url: str, width: int) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        visit = Visit(context, site_url)
        wide = {}
        for name, path in SOME.items():
            page = visit.open(path)
            if (found := page.evaluate("document.documentElement.scrollWidth")) > width:
                wide[name] = found
        assert wide == {}
        assert visit.problems == []
        page.goto("about:blank")


def test_the_chosen_theme_stays(visit: Visit) -> None:
    page = visit.open("/")
    light = page.evaluate("getComputedStyle(document.body).color")
    page.get_by_role("link", name=re.compile("Change the theme")).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).color") != light
    visit.open("/models")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_trace_is_printed_without_its_frame(visit: Visit) -> None:
    page = visit.open(CHAT)
    page.emulate_media(media="print")
    expect(page.locator("header.top")).to_be_hidden()
    expect(page.locator(".row").first).to_be_visible()
