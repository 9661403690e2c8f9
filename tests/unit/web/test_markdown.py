"""Markdown of a model: safe whatever it contains."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.web.markdown import MOST_CHARS, to_html

pytest.importorskip("nh3")

PIECES = st.sampled_from(
    [
        *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<style>*{}</style>"),
        *("[a](javascript:alert(1))", "[a](data:text/html,x)", "[a](http://x.test)", "![i](http://x.test/p.png)"),
        *("<http://x.test>", "[a]: vbscript:x\n", "[a]", "`code`", "```\nx\n```", "| a | b |\n|---|---|\n| 1 | 2 |\n"),
        *(
            "\u202e",
            "\u200b",
            "\x00",
            '"',
            "'",
            "<",
            ">",
            "&",
            "\n",
            "\n\n",
            "# ",
            "- ",
            "> ",
            "**",
            "_",
            "&#106;avascript:",
        ),
    ]
)
TAG = re.compile(r"<(/?)([a-zA-Z0-9]+)([^>]*)>")
ALLOWED = re.compile(r"(?: href=\"https?://[^\"]*\"| rel=\"noopener noreferrer nofollow\"| start=\"\d+\"| /)*")


@given(st.lists(st.one_of(PIECES, st.text(max_size=12)), max_size=12).map("".join))
def test_only_tags_of_markdown_and_links_to_the_web_remain(text: str) -> None:
    html = str(to_html(text))
    for found in TAG.finditer(html):
        assert found[2] not in ("script", "img", "svg", "style", "iframe", "object", "form", "input", "link", "meta")
        assert ALLOWED.fullmatch(found[3]), found[0]
    assert not re.search("[\u202e\u200b\x00]", html)


def test_what_a_model_writes_is_rendered() -> None:
    html = str(to_html("# Prices\n\n- **Lisbon** `120 €`\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    assert "<h1>Prices</h1>" in html
    assert "<strong>Lisbon</strong> <code>120 €</code>" in html
    assert "<td>1</td>" in html


def test_invisible_characters_are_shown() -> None:
    assert "invoice\\u202egpj.exe" in str(to_html("invoice\u202egpj.exe"))


def test_no_more_than_the_limit_is_rendered() -> None:
    assert len(str(to_html("a" * (MOST_CHARS + 500)))) < MOST_CHARS + 100
