"""Finds traces in which late spans contribute a word of a search. Their texts are separate documents; see `writing`."""

import sqlite3
from collections.abc import Sequence
from typing import Final

_MOST: Final = 5_000
"""The most traces that are checked, the newest."""


def late_matches(connection: sqlite3.Connection, terms: Sequence[str]) -> tuple[int, ...]:
    """The traces with all of these terms, of which a late span has at least one."""
    if connection.execute("SELECT 1 FROM late_documents LIMIT 1").fetchone() is None:
        return ()
    query = "SELECT trace FROM late_text WHERE late_text MATCH ? ORDER BY rowid DESC LIMIT ?"
    hits = [{trace for (trace,) in connection.execute(query, (f"text : {term}", 4 * _MOST))} for term in terms]
    left = sorted(set().union(*hits), reverse=True)[:_MOST]
    for term, late in zip(terms, hits, strict=True):
        if not left:
            break
        in_trace = _in_trace(connection, term, [trace for trace in left if trace not in late])
        left = [trace for trace in left if trace in late or trace in in_trace]
    return tuple(left)


def _in_trace(connection: sqlite3.Connection, term: str, traces: Sequence[int]) -> set[int]:
    """Those of the traces whose own document has the term."""
    if not traces:
        return set()
    if term.endswith("*"):  # see list_query: one check would join the lists of many words
        between = "SELECT rowid FROM trace_text WHERE trace_text MATCH ? AND rowid BETWEEN ? AND ?"
        return {trace for (trace,) in connection.execute(between, (term, min(traces), max(traces)))}
    one = "SELECT 1 FROM trace_text WHERE trace_text MATCH ? AND rowid = ?"
    return {trace for trace in traces if connection.execute(one, (term, trace)).fetchone() is not None}
