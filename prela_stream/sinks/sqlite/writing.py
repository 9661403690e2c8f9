"""Writes decisions, traces and late spans within one transaction of the SQLite store.

A late span costs what its bytes cost, whatever the size of its trace: the sums of a trace are extended, its texts become a
separate document, and its labels are bounded.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from prela_stream.codec.decisions import decode_decisions
from prela_stream.sinks.briefs import ATTRIBUTE_LABELS, KIND_LABELS, decode_brief, merged_listed
from prela_stream.sinks.calls import KINDS, MOST_DURATIONS, CallSums, calls_of, unpacked
from prela_stream.sinks.sqlite.bulk import insert
from prela_stream.sinks.sqlite.rows import (
    SPAN_COLUMNS,
    TRACE_COLUMNS,
    BatchRows,
    Row,
    TraceRows,
    call_values,
    decision_rows,
    span_values,
    trace_line,
)
from prela_stream.sinks.sqlite.transactions import StoreCounts
from prela_stream.sinks.texts import join_texts
from prela_stream.sinks.trace_rows import (
    SpanFacts,
    SpanRow,
    Sums,
    TraceChange,
    extended,
    int64,
    primary,
    top_of,
    with_better_report,
)

_INTO_TRACES: Final = f"INSERT INTO traces (id, stored, {', '.join(TRACE_COLUMNS)})"
_INTO_SPANS: Final = f"INSERT INTO spans (trace, resource, {', '.join(SPAN_COLUMNS)})"
_REPLACED: Final = ("resource", *SPAN_COLUMNS[1:])
_PUT_SPAN: Final = (
    f"{_INTO_SPANS} VALUES ({', '.join('?' * (2 + len(SPAN_COLUMNS)))}) ON CONFLICT (trace, span_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _REPLACED)
)
_SPAN_ROW: Final = (
    "SELECT span_id, parent_id, rank, name, span_type, status, start_ns, end_ns, brief FROM spans WHERE trace = ?"
)
_INTO_DECISIONS: Final = "INSERT OR IGNORE INTO decisions"
_INTO_CALLS: Final = "INSERT OR REPLACE INTO calls"
_HAS_SPANS: Final = "UPDATE decisions SET has_spans = 1 WHERE trace_id = ? AND decision_id = ? AND has_spans = 0"
_LABELS: Final = 8 * KIND_LABELS + ATTRIBUTE_LABELS
_ASKED: Final = 1_024
"""Traces that are looked up with one statement."""

_sums: Final = msgspec.msgpack.Decoder(Sums)
_listed: Final = msgspec.msgpack.Decoder(dict[str, list[str]])


class StoreWriter:
    """Writes through one connection. The caller begins and ends the transaction.

    Args:
        connection: Of the store, for writing.
        resources: Ids of resource maps, as a cache. The caller clears it if a transaction is rolled back.
    """

    def __init__(self, connection: sqlite3.Connection, resources: dict[bytes, int]) -> None:
        self._connection = connection
        self._resources = resources
        self._used: dict[int, int] = {}
        """The last trace that used a resource in this transaction."""
        self._counters = StoreCounts(connection)

    def write(self, batches: Iterable[BatchRows]) -> None:
        """Store batches. What is stored already changes nothing."""
        decisions: list[Row] = []
        traces: list[TraceRows] = []
        for batch in batches:
            decisions += batch.decisions
            traces += batch.traces
        self.put_decisions(decisions)
        stored, new, known = self._stored(traces), list[TraceRows](), list[TraceChange]()
        for rows in traces:
            if rows.change.trace_id in stored:
                known.append(rows.change)
            else:
                stored.add(rows.change.trace_id)
                new.append(rows)
        self.add(new)
        for change in known:
            self._merge(change)

    def save(self) -> None:
        """Write the counters; the last call of a transaction."""
        self._counters.save(self._connection)
        self._connection.executemany(
            "UPDATE resources SET last_trace = max(last_trace, ?) WHERE id = ?",
            [(trace, resource) for resource, trace in self._used.items()],
        )

    def put_decisions(self, rows: Sequence[Row]) -> int:
        """Store decisions; returns how many of them were not stored before."""
        new = {
            kept: insert(self._connection, _INTO_DECISIONS, [row for row in rows if row[2] == kept])
            for kept in (True, False)
        }
        self._counters.add("kept", new[True])
        self._counters.add("dropped", new[False])
        return new[True] + new[False]

    def add(self, traces: Sequence[TraceRows]) -> None:
        """Store traces that are not stored yet."""
        lines: list[Row] = []
        spans: list[Row] = []
        calls: list[Row] = []
        documents: list[Row] = []
        labels: list[Row] = []
        decisions = [row for rows in traces for row in rows.decisions]
        for rows in traces:
            trace = self._counters.next("last_trace")
            lines.append((trace, self._counters.next("stored"), *rows.trace))
            spans.extend([(trace, self._resource(resource, trace), *values) for resource, values in rows.spans])
            calls.extend([(trace, *values) for values in rows.calls])
            documents.append((trace, rows.text))
            labels.append((trace, rows.labels))
        connection = self._connection
        if self.put_decisions(decisions) < len(decisions):  # some are stored already, without spans
            connection.executemany(_HAS_SPANS, [row[:2] for row in decisions])
        insert(connection, _INTO_TRACES, lines)
        insert(connection, _INTO_SPANS, spans)
        insert(connection, _INTO_CALLS, calls)
        # These come last, because FTS5 writes what it holds to the disk before each statement with several rows.
        insert(connection, "INSERT INTO trace_labels (rowid, labels)", labels)
        insert(connection, "INSERT INTO trace_text (rowid, text)", documents)
        self._counters.add("traces", len(lines))
        self._counters.add("spans", len(spans))

    def _stored(self, traces: Sequence[TraceRows]) -> set[bytes]:
        """The ids of those that are stored."""
        found: set[bytes] = set()
        for at in range(0, len(traces), _ASKED):
            ids = [rows.change.trace_id for rows in traces[at : at + _ASKED]]
            query = f"SELECT trace_id FROM traces WHERE trace_id IN ({', '.join('?' * len(ids))})"  # noqa: S608 - constants
            found.update(trace_id for (trace_id,) in self._connection.execute(query, ids))
        return found

    def _merge(self, change: TraceChange) -> None:
        """Add to a trace that is stored. What is stored already changes nothing."""
        connection = self._connection
        query = "SELECT id, sums, listed FROM traces WHERE trace_id = ?"
        found = connection.execute(query, (change.trace_id,)).fetchone()
        trace, sums, listed_before = found[0], _sums.decode(found[1]), _listed.decode(found[2])
        self.put_decisions(decision_rows(change.decisions.values()))
        keys = [(change.trace_id, decision_id) for decision_id in change.decisions]
        decided = connection.executemany(_HAS_SPANS, keys).rowcount
        added, replaced = self._new_reports(trace, change)
        listed = merged_listed(listed_before, change.labels.listed())
        labelled = self._extend_labels(trace, change)
        if decided <= 0 and not added and not replaced and listed == listed_before and not labelled:
            return
        if added or replaced:
            facts = self._extended_facts(trace, sums, added, replaced)
            self._extend_calls(trace, added, replaced)
            new = [*added.values(), *(new for _, new in replaced)]
            self._add_document(trace, [text for row in new for text in change.texts[row.span_id]])
        else:
            facts = self._facts(trace, sums)
        bodies = connection.execute("SELECT body FROM decisions WHERE trace_id = ? AND has_spans", (change.trace_id,))
        decisions = primary(decode_decisions(body)[0] for (body,) in bodies)
        self._update(trace, trace_line(change.trace_id, decisions, facts, listed))
        self._counters.add("spans", len(added))

    def _update(self, trace: int, line: dict[str, object]) -> None:
        """Change the columns that differ, because each index on a column that is set is written again."""
        names = TRACE_COLUMNS[1:]
        query = f"SELECT {', '.join(names)} FROM traces WHERE id = ?"  # noqa: S608 - constants
        before = dict(zip(names, self._connection.execute(query, (trace,)).fetchone(), strict=True))
        changed = ["stored", *(name for name in names if before[name] != line[name])]
        assignments = ", ".join(f"{name} = :{name}" for name in changed)
        values = {**line, "id": trace, "stored": self._counters.next("stored")}
        self._connection.execute(f"UPDATE traces SET {assignments} WHERE id = :id", values)  # noqa: S608 - constants

    def _new_reports(
        self, trace: int, change: TraceChange
    ) -> tuple[dict[bytes, SpanRow], list[tuple[SpanRow, SpanRow]]]:
        """Store the spans that are not stored, and better reports of those that are; returns both."""
        connection = self._connection
        added: dict[bytes, SpanRow] = {}
        replaced: list[tuple[SpanRow, SpanRow]] = []
        for row in change.spans.values():
            found = connection.execute(f"{_SPAN_ROW} AND span_id = ?", (trace, row.span_id)).fetchone()
            if found is None:
                added[row.span_id] = row
            elif found[2] < row.rank:
                replaced.append((_stored_row(found), row))
        new = [*added.values(), *(new for _, new in replaced)]
        values = [
            (trace, self._resource(row.resource, trace), *span_values(row, self._is_top(trace, row, added)))
            for row in new
        ]
        connection.executemany(_PUT_SPAN, values)
        connection.executemany(
            "UPDATE spans SET top = 0 WHERE trace = ? AND parent_id = ? AND top", [(trace, one) for one in added]
        )
        return added, replaced

    def _is_top(self, trace: int, row: SpanRow, added: dict[bytes, SpanRow]) -> bool:
        if row.parent_id is None or row.parent_id in added:
            return row.parent_id is None
        query = "SELECT 1 FROM spans WHERE trace = ? AND span_id = ?"
        return self._connection.execute(query, (trace, row.parent_id)).fetchone() is None

    def _extended_facts(
        self, trace: int, sums: Sums, added: dict[bytes, SpanRow], replaced: list[tuple[SpanRow, SpanRow]]
    ) -> SpanFacts:
        better: Sums | None = sums
        for old, new in replaced:
            better = None if better is None else with_better_report(better, old, new)
        if better is None:  # rare: a span was reported again with another start, or is no root any more
            every = [_stored_row(found) for found in self._connection.execute(_SPAN_ROW, (trace,))]
            return self._facts(trace, extended(Sums(), every))
        return self._facts(trace, extended(better, added.values()))

    def _facts(self, trace: int, sums: Sums) -> SpanFacts:
        if sums.root is not None:
            return SpanFacts(sums=sums, root=sums.root)
        tops = self._connection.execute(f"{_SPAN_ROW} AND top LIMIT 2", (trace,)).fetchall()
        return SpanFacts(sums=sums, root=top_of(_stored_row(tops[0])) if len(tops) == 1 else None)

    def _extend_calls(self, trace: int, added: dict[bytes, SpanRow], replaced: list[tuple[SpanRow, SpanRow]]) -> None:
        rows = {**added, **{new.span_id: new for _, new in replaced}}
        for key, own in calls_of(rows, [old for old, _ in replaced]).items():
            sums = own
            query = "SELECT * FROM calls WHERE trace = ? AND kind = ? AND name = ?"
            found = self._connection.execute(query, (trace, KINDS.index(key[0]), key[1])).fetchone()
            if found is not None:
                calls, errors, input_tokens, output_tokens, priced, cost, durations = found[3:]
                sums = CallSums(
                    calls=calls + own.calls,
                    errors=errors + own.errors,
                    input_tokens=int64(input_tokens + own.input_tokens),
                    output_tokens=int64(output_tokens + own.output_tokens),
                    priced=priced + own.priced,
                    cost_usd=cost + own.cost_usd,
                    durations=[*unpacked(durations), *own.durations][:MOST_DURATIONS],
                )
            insert(self._connection, _INTO_CALLS, [(trace, *call_values(key, sums))])

    def _extend_labels(self, trace: int, change: TraceChange) -> bool:
        tokens = change.labels.tokens()
        row = self._connection.execute("SELECT labels FROM trace_labels WHERE rowid = ?", (trace,)).fetchone()
        before = set() if row is None else set(row[0].split())
        if tokens <= before or len(before) >= _LABELS:
            return False
        labels = " ".join(sorted(before | tokens)[:_LABELS])
        if row is None:
            self._connection.execute("INSERT INTO trace_labels (rowid, labels) VALUES (?, ?)", (trace, labels))
        else:
            self._connection.execute("UPDATE trace_labels SET labels = ? WHERE rowid = ?", (labels, trace))
        return True

    def _add_document(self, trace: int, texts: Sequence[str]) -> None:
        """Texts of late spans are a separate document: to extend that of the trace would cost what the whole trace costs."""
        made = self._connection.execute(
            "INSERT INTO late_text (trace, text) VALUES (?, ?)", (trace, join_texts(texts))
        ).lastrowid
        self._connection.execute("INSERT INTO late_documents VALUES (?, ?)", (trace, made))

    def _resource(self, body: bytes, trace: int) -> int:
        """The id of a resource that many spans share."""
        known = self._resources.get(body)
        if known is None:
            digest = blake2b(body, digest_size=16).digest()
            self._connection.execute(
                "INSERT OR IGNORE INTO resources (digest, last_trace, body) VALUES (?, ?, ?)", (digest, trace, body)
            )
            (known,) = self._connection.execute("SELECT id FROM resources WHERE digest = ?", (digest,)).fetchone()
            if len(self._resources) >= 10_000:
                self._resources.clear()
            self._resources[body] = known
        self._used[known] = max(self._used.get(known, 0), trace)
        return known


def _stored_row(found: Iterable[Any]) -> SpanRow:
    """A span as it is stored, without its item."""
    span_id, parent_id, rank, name, span_type, status, start_ns, end_ns, brief = found
    return SpanRow(
        span_id=span_id,
        parent_id=parent_id,
        rank=rank,
        name=name,
        span_type=span_type,
        status=status,
        start_ns=start_ns,
        end_ns=end_ns,
        resource=b"",
        brief=decode_brief(brief),
        item=msgspec.Raw(),
    )
