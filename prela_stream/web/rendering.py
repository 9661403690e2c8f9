"""Jinja as every page uses it: everything is escaped, and invisible and bidi characters are shown as their code points."""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from prela_stream._version import __version__
from prela_stream.text import visible
from prela_stream.views import formats
from prela_stream.views.short_ids import short_id
from prela_stream.web import drawing, times

STATIC: Final = Path(__file__).with_name("static")
THEMES: Final = ("auto", "light", "dark")


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer."""
    return HTMLResponse(render(template, request=request, theme=theme_of(request), **values), status)


def render(template: str, **values: Any) -> str:
    """A template as text."""
    return _environment().get_template(template).render(values)


def theme_of(request: Request) -> str:
    """The theme that the reader chose, from a cookie, so that no page flashes in the other one."""
    chosen = request.cookies.get("prela_theme", "auto")
    return chosen if chosen in THEMES else "auto"


def is_partial(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("hx-request-type") == "partial"


@cache
def asset(name: str) -> str:
    """The URL of a static file. It changes with the content, so that browsers may keep the file."""
    digest = hashlib.blake2b((STATIC / name).read_bytes(), digest_size=6).hexdigest()
    return f"/static/{name}?{digest}"


def link(path: str, values: Mapping[str, Any]) -> str:
    """A path with these parameters, without the empty ones."""
    query = urlencode({key: value for key, value in values.items() if value not in (None, "", False)})
    return f"{path}?{query}" if query else path


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        duration=formats.duration,
        offset=formats.offset,
        count=formats.count,
        cost=formats.cost,
        age=formats.age,
        moment=times.moment,
        iso=times.iso,
        percent=times.percent,
        plural=formats.plural,
        count_of=times.weight,
        clock=times.clock,
        short_id=short_id,
    )
    environment.globals.update(asset=asset, link=link, version=__version__, icons=drawing.ICONS, count_of=times.weight)
    environment.globals.update(short=times.short, dollars=formats.cost)
    return environment


def _visible(value: Any) -> Any:
    """What an expression of a template gives: every text that is not markup without anything invisible."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return "" if value is None else value
