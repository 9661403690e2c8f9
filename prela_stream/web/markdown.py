"""Markdown of a model as safe HTML. Text of models and people is hostile: no HTML, no image, no link but http and https.

Rendering is slow for text that was made to be slow, so a caller passes at most `MOST_CHARS`; longer text is cut.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from prela_stream.text import visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MOST_CHARS: Final = 20_000
_TAGS: Final = frozenset(
    {
        *(
            "a",
            "blockquote",
            "br",
            "code",
            "del",
            "em",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "hr",
            "li",
            "ol",
            "p",
            "pre",
        ),
        *("s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
    }
)
_HTTP: Final = re.compile(r"https?://", re.IGNORECASE)


def to_html(text: str) -> Markup:
    """The first `MOST_CHARS` of the text as HTML with the tags of Markdown alone. Invisible characters are shown."""
    import nh3

    shown = visible(text[:MOST_CHARS])
    html = nh3.clean(
        _parser().render(shown),
        tags=set(_TAGS),
        attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(html)  # noqa: S704 - nh3 cleaned it


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 20})
    parser.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    parser.validateLink = lambda url: _HTTP.match(url) is not None  # type: ignore[method-assign]
    return parser
