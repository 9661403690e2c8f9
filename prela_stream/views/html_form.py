"""Traces as one HTML file that needs nothing else: no script, no other file, no other host. To attach to an issue or to mail.

Everything from a span is escaped, also what no reader would see. Details are folded by the browser's own `<details>`.
"""

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from prela_stream.model.decision import Decision
from prela_stream.model.span import SpanData, SpanStatus
from prela_stream.model.tree import SpanTree
from prela_stream.text import visible
from prela_stream.views.content import text_of
from prela_stream.views.decision_text import terms_of, verdict_of
from prela_stream.views.facts import facts_of
from prela_stream.views.formats import clean, cut, duration, offset, plural
from prela_stream.views.rows import TraceRows, TreeRow, rows_of
from prela_stream.views.text_form import conversation_lines, facts_notes
from prela_stream.views.transcript import transcript_of

LONGEST_VALUE: Final = 100_000
"""Characters of one attribute."""
_BAR: Final = 200
_INDENT: Final = 14
_DEEPEST: Final = 40

_STYLE: Final = """
:root{color-scheme:light dark}
body{font:14px/1.45 system-ui,sans-serif;margin:1.5rem;max-width:90rem}
h1{font-size:1.2rem;margin:2rem 0 .3rem}h2{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.2rem 0}code,pre,summary{font-family:ui-monospace,monospace;font-size:13px}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0;padding:.4rem;background:#8881}
summary{cursor:pointer;padding:1px 0}summary:hover{background:#8882}
details>div{border-left:2px solid #8884;margin:.2rem 0 .6rem 1.2rem;padding-left:.8rem}
svg{vertical-align:middle;margin-right:.6rem}rect{fill:#888}
.llm{fill:#0aa}.agent{fill:#a3a}.tool{fill:#c80}.retrieval,.embedding{fill:#36c}.error rect,rect.error{fill:#d22}
.error{color:#d22}.dim{opacity:.7}dt{font-weight:600;margin-top:.3rem}dd{margin:0 0 .2rem 1rem}
"""


class ExportedTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace of the file."""

    spans: Sequence[SpanData]
    """At least one."""
    decision: Decision | None = None


def html_document(traces: Iterable[ExportedTrace]) -> Iterator[str]:
    """The document in parts, in order."""
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    yield '<meta name="viewport" content="width=device-width">\n<title>Traces</title>\n'
    yield f"<style>{_STYLE}</style></head><body>\n"
    for trace in traces:
        yield from _trace(trace)
    yield "</body></html>\n"


def _trace(trace: ExportedTrace) -> Iterator[str]:
    tree = SpanTree(trace.spans)
    rows = rows_of(tree, fold=False)
    first = tree.spans[0 if tree.foremost is None else tree.foremost]
    errors = sum(span.status is SpanStatus.ERROR for span in tree.spans)
    yield f"<h1>{_text(first.name) or '(no name)'}</h1>\n<p><code>{_text(first.trace_id)}</code></p>\n"
    services = ", ".join(rows.services)
    length = duration(max(rows.end_ns - rows.start_ns, 0))
    yield f"<p>{_text(services)} · {first.started_at.isoformat(timespec='milliseconds')} · {length} · "
    yield f"{plural(len(tree), 'span')} · {plural(errors, 'error')}</p>\n"
    if trace.decision is not None:
        yield f"<p>{_text(verdict_of(trace.decision))}</p>\n"
        yield f'<p class="dim">decided {_text(terms_of(trace.decision))}</p>\n'
    yield "<h2>Spans</h2>\n"
    for row in rows.rows:
        yield from _row(row, rows)
    lines = list(conversation_lines(transcript_of(tree), full=True))
    if lines:
        yield f"<h2>Conversation</h2>\n<pre>{_lines(chr(10).join(lines))}</pre>\n"


def _row(row: TreeRow, rows: TraceRows) -> Iterator[str]:
    indent = _INDENT * min(row.depth, _DEEPEST)
    if row.node is None:
        yield f'<p class="dim">(span {_text(row.missing)} is missing)</p>\n'
        return
    span = row.node.span
    failed = span.status is SpanStatus.ERROR
    kind = span.span_type.lower()
    notes = ", ".join(facts_notes(span, facts_of(span)))
    times = f"{offset(row.start_ns - rows.start_ns) if row.start_ns else ''} {duration(span.duration_ns)}"
    yield f"<details><summary{' class=error' if failed else ''}>{_bar(row, rows, 'error' if failed else kind)}"
    yield f'<svg width="{indent + 1}" height="1"></svg>{row.number} {kind} <b>{_text(span.name) or "(no name)"}</b> '
    yield f'<span class="dim">{_text(times)} {_text(notes)}</span></summary><div>\n'
    yield f"<p><code>{_text(span.span_id)}</code> · {_text(span.resource.service_name)} · {span.status.value}"
    yield f" {_text(span.status_message or '')}</p>\n"
    yield from _values(span.attributes.items())
    for event in span.events:
        yield f"<p><b>event {_text(event.name)}</b> {offset(event.time_ns - span.start_ns)}</p>\n"
        yield from _values(event.attributes.items())
    yield "</div></details>\n"


def _bar(row: TreeRow, rows: TraceRows, kind: str) -> str:
    whole = max(rows.end_ns - rows.start_ns, 1)
    end = rows.end_ns if row.end_ns is None else row.end_ns
    left = min(max((row.start_ns - rows.start_ns) * _BAR // whole, 0), _BAR - 2) if row.start_ns else 0
    width = max(min((end - row.start_ns) * _BAR // whole, _BAR - left), 2) if row.start_ns else 0
    return (
        f'<svg width="{_BAR}" height="10" role="img" aria-hidden="true"><rect class="{kind}" x="{left}" width="{width}" '
        'height="10"/></svg>'
    )


def _values(values: Iterable[tuple[str, object]]) -> Iterator[str]:
    found = list(values)
    if not found:
        return
    yield "<dl>"
    for name, value in found:
        yield f"<dt><code>{_text(str(name))}</code></dt><dd><pre>{_lines(cut(text_of(value)[0], LONGEST_VALUE))}</pre></dd>\n"
    yield "</dl>\n"


def _text(text: str) -> str:
    return html.escape(clean(text))


def _lines(text: str) -> str:
    return html.escape(visible(text))
