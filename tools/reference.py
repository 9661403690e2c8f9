"""Writes the reference pages of docs/ from the code: `python -m tools.reference`, or `make docs`.

A page is a function that returns its text; a new one is a module here and a line in `PAGES`. tests/test_reference.py checks
that the pages in the repository are current.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tools import api_page, cli_page, instrumentation_page, metrics_page, settings_page

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
NOTE: Final = "<!-- Written by `make docs` from the code. Change the docstrings there, not this page. -->\n\n"
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "settings.md": settings_page.text,
    "api.md": api_page.text,
    "cli.md": cli_page.text,
    "metrics.md": metrics_page.text,
    "instrumentation.md": instrumentation_page.text,
}
"""The text of each page by its file name."""


def page(name: str) -> str:
    """The whole text of a page as it should be."""
    return NOTE + PAGES[name]().rstrip() + "\n"


def main() -> None:
    """Write the pages that are not current."""
    for name in PAGES:
        file = DOCS / name
        text = page(name)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file}")


if __name__ == "__main__":
    main()
