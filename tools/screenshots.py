"""Takes the screenshots of the README: runs the demo, serves its store, and opens the pages in Chromium. `make screenshots`."""

import re
import sys
import tempfile
from pathlib import Path

import anyio
import httpx2

from prela_stream.config import load_settings
from prela_stream.demo import show
from tests.support.browser import Visit, apart, chromium, site

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
SIZE = (1280, 760)


def main() -> int:
    """Write docs/pictures/{list,trace,transcript,models}.png."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(env={}, overrides={"directory": folder})

        async def demo() -> None:
            with anyio.fail_after(300):
                await show.run(settings, runs=150)

        apart(demo)
        with site(Path(folder) / "traces.db") as url, chromium() as browser:
            listed = httpx2.get(f"{url}/?name=research_agent&status=error").text
            found = re.search(r'data-href="/traces/([0-9a-f]{32})"', listed)
            assert found is not None, "the demo kept no failed research agent"
            trace = f"/traces/{found[1]}"
            for name, path, scheme in (
                ("list", "/", "light"),
                ("trace", trace, "light"),
                ("transcript", f"{trace}/transcript", "dark"),
                ("models", "/models", "light"),
            ):
                with browser.new_context(
                    viewport={"width": SIZE[0], "height": SIZE[1]},
                    color_scheme=scheme,  # type: ignore[arg-type]  # of a literal type in a tuple
                ) as context:
                    page = Visit(context, url).open(path)
                    if name == "list":
                        page.locator(".chart svg").first.wait_for()
                    if name == "trace":
                        page.locator(".row.llm").nth(2).click()
                        page.locator("#detail h2").wait_for()
                    page.screenshot(path=str(FOLDER / f"{name}.png"))
                print(f"wrote {FOLDER / name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
