"""The rows of a waterfall as HTML, written without a template because there may be thousands.

Positions are SVG attributes, because the content security policy forbids inline styles. Every text is escaped here.
"""

import html
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from prela_stream.sinks.query import LightSpan
from prela_stream.text import visible
from prela_stream.views import formats
from prela_stream.web.rows import Row

_ICONS: Final = {
    "agent": '<circle cx="8" cy="5" r="2.6"/><path d="M3 14c0-3 2.2-4.8 5-4.8s5 1.8 5 4.8"/>',
    "llm": '<path d="M8 1.8 9.6 6.4 14.2 8 9.6 9.6 8 14.2 6.4 9.6 1.8 8 6.4 6.4z"/>',
    "tool": '<path d="M9.8 2.2a3.6 3.6 0 0 0-3 5.4L2.2 12.2l1.6 1.6 4.6-4.6a3.6 3.6 0 0 0 5-4.4L11 7.2 8.8 5z"/>',
    "retrieval": '<circle cx="7" cy="7" r="4.2"/><path d="m10.2 10.2 3.6 3.6"/>',
    "embedding": '<path d="M2.5 13.5v-4M6.2 13.5v-8M9.8 13.5V7M13.5 13.5V2.5"/>',
    "custom": '<circle cx="8" cy="8" r="2.2"/>',
}
ICONS: Final = {
    kind: Markup(f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">{paths}</svg>')  # noqa: S704 - constants
    for kind, paths in _ICONS.items()
}
_ORDINARY_ENDS: Final = frozenset({"", "stop", "end_turn", "tool_use", "tool_call", "tool_calls"})
_LONGEST: Final = 200


def rows_html(rows: Sequence[Row], trace_id: str, chosen: str) -> Markup:
    """The rows of a waterfall.

    Args:
        rows: In their order.
        trace_id: 32 hex digits.
        chosen: The id of the span whose detail is open; empty: none.
    """
    return Markup("\n".join([_row(row, trace_id, chosen) for row in rows]))  # noqa: S704 - every text is escaped in _row


def _row(row: Row, trace_id: str, chosen: str) -> str:
    hidden = " hidden" if row.folded else ""
    place = f'd{min(row.depth, 24)}" role="treeitem" data-d="{row.depth}" aria-level="{row.depth + 1}"'
    name = _escaped(row.name)
    if row.kind == "fold":
        spans = _mark("", formats.plural(row.below, "span")) if row.below > row.repeats else ""
        return (
            f'<div class="row fold {place} id="f{row.span_id}" data-k="fold" aria-expanded="false"{hidden}><span class="n">'
            f'<i class="tw"></i><i class="ic"></i><b>{row.repeats:,} &times; the same</b> <bdi>{name}</bdi>{spans}</span>'
            f'<span class="w">{formats.duration(row.duration_ns)} in sum</span></div>'
        )
    if row.kind == "missing":
        return (
            f'<div class="row missing {place}><span class="n"><i class="ic"></i>'
            f'<span>parent {name} was not received</span></span><span class="w"></span></div>'
        )
    expanded, arrow = (' aria-expanded="true"', '<i class="tw"></i>') if row.has_rows else ("", "")
    selected = ' aria-selected="true"' if row.span_id == chosen else ""
    return (
        f'<div class="row {row.kind} {row.status} {place} id="s{row.span_id}"{expanded}{selected}{hidden}>'
        f'<span class="n">{arrow}<i class="ic"></i><a href="/traces/{trace_id}/spans/{row.span_id}" tabindex="-1">'
        f"{name or '(no name)'}</a>{_facts(row)}</span>{_bar(row)}</div>"
    )


def _bar(row: Row) -> str:
    """The bar of a row with its duration beside it, and the critical path below."""
    if row.bar is None:
        return '<span class="w"></span>'
    x, width = row.bar.x, row.bar.width
    end = x + width
    path = "".join([f'<rect class="c" x="{one.x}%" y="23" width="{one.width}%" height="3"/>' for one in row.path])
    if end <= 86:
        place = f'x="{end:.2f}%" dx="6"'
    elif x >= 14:
        place = f'x="{x:.2f}%" dx="-6" class="e"'
    else:
        place = f'x="{end:.2f}%" dx="-6" class="e i"'
    return (
        f'<svg class="w" aria-hidden="true"><rect class="b" x="{x}%" y="7" width="{width}%" height="14" rx="3"/>'
        f'{path}<text {place} y="18">{formats.duration(row.duration_ns)}</text></svg>'
    )


def _facts(row: Row) -> str:
    """What is behind the name of a span: service, model, tokens, cost, and what went wrong."""
    parts: list[str] = []
    if (span := row.span) is not None:
        if row.service:
            parts.append(_mark("svc", row.service))
        if span.model and span.model not in row.name:
            parts.append(_mark("", span.model))
        if row.kind in ("llm", "embedding"):
            parts += _usage(span)
        if span.status != "SUCCESS" or span.resends or span.http_status is not None or span.finish_reason:
            parts += _faults(span)
    if row.failed_below and row.status != "error":
        parts.append(f'<em class="bad" title="failed spans below">{row.failed_below}✕</em>')
    parts += [_mark("warn", note) for note in row.notes]
    if row.depth > 24:
        parts.append(_mark("", f"level {row.depth + 1}"))
    return "".join(parts)


def _usage(span: LightSpan) -> list[str]:
    found = []
    if span.input_tokens or span.output_tokens:
        found.append(
            _mark("tok", f"{formats.count(span.input_tokens or 0)} → {formats.count(span.output_tokens or 0)}")
        )
    if span.cost_usd is not None:
        found.append(_mark("tok", formats.cost(span.cost_usd)))
    return found


def _faults(span: LightSpan) -> list[str]:
    found = []
    if span.status == "ERROR":
        is_code = span.http_status is not None and span.error_type == str(span.http_status)
        if not is_code:
            found.append(_mark("bad", span.error_type or span.status_message or "failed"))
    elif span.status != "SUCCESS":
        found.append(_mark("warn", "open" if span.status == "PENDING" else "cancelled"))
    if span.resends:
        found.append(_mark("warn", f"{span.resends} retr{'y' if span.resends == 1 else 'ies'}"))
    if span.http_status is not None and span.http_status >= 400:
        found.append(_mark("bad", f"HTTP {span.http_status}"))
    if span.finish_reason not in _ORDINARY_ENDS:
        found.append(_mark("warn", span.finish_reason))
    return found


def _mark(kind: str, text: str) -> str:
    return f'<em class="{kind}">{_escaped(text)}</em>' if kind else f"<em>{_escaped(text)}</em>"


def _escaped(text: str) -> str:
    return html.escape(visible(text[:_LONGEST], lines=False))
