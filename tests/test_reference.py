"""The reference pages are those that the code gives, and leave nothing without a word about it."""

import re

import pytest

import prela_stream
from tools.api_page import subjects
from tools.reference import DOCS, PAGES, page

ROW = re.compile(r"^\| `.*\|$", re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == page(name), "run `make docs`"


@pytest.mark.parametrize("name", [name for name in PAGES if name != "api.md"])
def test_every_row_has_a_meaning(name: str) -> None:
    rows = ROW.findall(page(name))
    assert len(rows) > 20
    assert [row for row in rows if row.rstrip("|").rstrip().endswith("|")] == []


def test_every_setting_and_its_variable_is_on_the_page() -> None:
    text = page("settings.md")
    for name in ("PRELA_ASSEMBLY_SETTLE_MS", "PRELA_KAFKA_FETCH_BYTES", "PRELA_WORKER_POISON_WINDOW", "PRELA_STRICT"):
        assert f"`{name}`" in text
    assert '### type = "sqlite"' in text


def test_every_public_name_has_a_subject_and_a_place() -> None:
    listed = [name for names in subjects().values() for name in names]
    assert sorted(listed) == sorted(name for name in prela_stream.__all__ if name != "__version__")
    assert max(len(names) for names in subjects().values()) <= 10
    headings = re.findall(r"^### (\w+)$", page("api.md"), re.MULTILINE)
    assert set(listed) <= set(headings)
