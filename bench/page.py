"""The page of a trace of 5,000 spans in Chromium, from the click to a page that answers. Part of `bench/web.py --browser`.

`prela-stream web` serves the store in another process, and Chromium runs without a screen. A page is usable when its first rows
are painted, a key moves the cursor, and Enter has opened a span with its content. The clock is that of the page: the time since
the navigation began.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
_DEADLINE_MS: Final = 60_000
WATCH: Final = """
(() => {
  const seen = window.seen = {};
  const note = (name) => { seen[name] ??= performance.now(); };
  let tries = 0;
  const look = () => {
    const rows = document.querySelectorAll(".row");
    if (rows.length && performance.getEntriesByName("first-contentful-paint").length) {
      note("rows_ms");
      if (!document.querySelector(".row.at")) press("j");
      else if (!seen.key_ms) { note("key_ms"); press("Enter"); }
      if (document.querySelector("#detail h2")) note("span_ms");
      if (!document.querySelector("#rest")) note("all_rows_ms");
    }
    requestAnimationFrame(look);
  };
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  requestAnimationFrame(look);
})();
"""
TIMES: Final = """() => {
  const one = performance.getEntriesByType("navigation")[0];
  return { server_ms: one.responseStart - one.requestStart, kilobytes: one.decodedBodySize / 1e3,
           elements: document.querySelectorAll("*").length, ...window.seen };
}"""


FIGURES: Final = ("server_ms", "rows_ms", "key_ms", "span_ms", "all_rows_ms", "kilobytes", "elements")


async def page_times(store: str, trace_id: str, rounds: int) -> dict[str, Any]:
    """Milliseconds from the navigation to the first rows, to an answer to a key, to an open span, and to the last row.

    Args:
        store: A SQLite file.
        trace_id: Of a trace with thousands of spans.
        rounds: How often the page is opened, each time in a new browser context, after one round that is not counted.
    """
    path = next((one for name in _NAMES if (one := shutil.which(name))), None)
    if path is None:
        return {"missing": "Chromium: apt-get install chromium"}
    from playwright.async_api import async_playwright

    server = served(store)
    try:
        url = await anyio.to_thread.run_sync(url_of, server)
        found: list[dict[str, float]] = []
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
            for _ in range(rounds + 1):
                context = await browser.new_context(viewport={"width": 1280, "height": 800})
                context.set_default_timeout(_DEADLINE_MS)
                page = await context.new_page()
                await page.add_init_script(WATCH)
                await page.goto(f"{url}/traces/{trace_id}")
                await page.locator("#detail h2").wait_for()
                await page.locator("#rest").wait_for(state="detached")
                await page.evaluate("() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
                found.append(await page.evaluate(TIMES))
                await context.close()
            await browser.close()
    finally:
        server.terminate()
        server.wait()
    return {"rounds": rounds, "load": os.getloadavg()[0], **{name: _spread(found[1:], name) for name in FIGURES}}


def _spread(found: list[dict[str, float]], name: str) -> dict[str, float]:
    values = [one[name] for one in found]
    return {"least": round(min(values), 1), "p50": round(statistics.median(values), 1), "most": round(max(values), 1)}


def served(store: str) -> "subprocess.Popen[str]":
    """`prela-stream web` with this store."""
    env = {**os.environ, "PRELA_SINK": f'[{{"path": "{store}"}}]', "PRELA_WEB_LISTEN": "127.0.0.1:0"}
    command = [sys.executable, "-m", "prela_stream", "web"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=Path(store).parent)


def url_of(server: "subprocess.Popen[str]") -> str:
    """Where it serves the page, once it does."""
    assert server.stderr is not None
    for line in server.stderr:
        if (found := re.search(r"open (http://\S+)", line)) is not None:
            return found[1]
    msg = "prela-stream web ended before it was ready"
    raise RuntimeError(msg)
