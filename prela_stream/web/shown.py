"""One piece of content as a page shows it: Markdown as safe HTML, JSON indented, or plain text; only so much of it at first."""

from typing import Any, Final, Self

import msgspec

from prela_stream.model.plain import safe_text
from prela_stream.views.content import Part
from prela_stream.web.markdown import MOST_CHARS, to_html

FORMS: Final = ("markdown", "plain", "json")
_MOST_PLAIN: Final = 100_000


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A text and how it is shown."""

    form: str
    """`html`, `json` or `plain`."""
    text: str
    """For `html` a `Markup`."""
    size: int
    """Characters of the whole text."""
    is_cut: bool = False
    """Whether `text` is only its beginning; the raw span has all of it."""
    rest: str = ""
    """What follows an `html` text that is too long for Markdown."""

    @classmethod
    def of(cls, part: Part, form: str) -> Self:
        """A part in the form that the reader chose."""
        if form == "json":
            return cls.plain("json", _indented(msgspec.json.encode(part).decode()))
        if part.is_json:
            return cls.plain("json", _indented(part.text))
        if form == "markdown" and part.kind in ("text", "reasoning", "tool_result"):
            html = to_html(part.text[:MOST_CHARS])
            rest = part.text[MOST_CHARS : MOST_CHARS + _MOST_PLAIN]
            cut = len(part.text) > MOST_CHARS + _MOST_PLAIN
            return cls(form="html", text=html, size=len(part.text), is_cut=cut, rest=rest)
        return cls.plain("plain", part.text)

    @classmethod
    def plain(cls, form: str, text: str) -> Self:
        """The beginning of a text."""
        return cls(form=form, text=text[:_MOST_PLAIN], size=len(text), is_cut=len(text) > _MOST_PLAIN)


def shown_json(value: Any) -> Shown:
    """Any attribute."""
    if isinstance(value, str):
        is_document = value[:1] in "{[" and value[-1:] in "}]"
        text = _indented(value) if is_document else value
        return Shown.plain("json" if is_document else "plain", text)
    try:
        return Shown.plain("json", _indented(msgspec.json.encode(value).decode()))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return Shown.plain("plain", safe_text(value))


def _indented(text: str) -> str:
    """JSON with line breaks; anything else as it is."""
    if len(text) > _MOST_PLAIN * 4:
        return text
    try:
        return msgspec.json.format(text.encode(), indent=2).decode()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text
