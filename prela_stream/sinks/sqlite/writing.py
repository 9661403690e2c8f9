"""Writes decisions, traces and late spans within one transaction of the SQLite store.

A late span costs what its bytes cost, whatever the size of its trace: the sums of a trace are extended, its texts become a
separate document, and its labels are bounded.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from prela_stream.codec.decisions import decode_decisions, encode_decisions
from prela_stream.model.decision import Decision
from prela_stream.sinks.briefs import ATTRIBUTE_LABELS, KIND_LABELS, decode_brief, encode_brief, merged_listed
from prela_stream.sinks.calls import KINDS, MOST_DURATIONS, CallSums, calls_of, unpacked
from prela_stream.sinks.sqlite.transactions import StoreCounts
from prela_stream.sinks.texts import join_texts
from prela_stream.sinks.trace_rows import (
    LABEL_CHARS,
    STATUSES,
    SpanFacts,
    SpanRow,
    Sums,
    TraceChange,
    duration_bar,
    extended,
    facts_of,
    int64,
    primary,
    times_of,
    top_of,
    tops_of,
    trace_columns,
    with_better_report,
)

_COLUMNS: Final = (
    "trace_id", "decision_id", "root_name", "service", "start_ns", "duration_ns", "duration_bar", "spans", "errors", "status",
    "input_tokens", "output_tokens", "tokens", "cost_usd", "policy", "kept_because", "weight", "trigger", "complete", "session",
    "decided_at_ms",
    "listed", "sums", "stored", "id",
)  # fmt: skip
_PLACES: Final = ", ".join(f":{name}" for name in _COLUMNS)
_INSERT_TRACE: Final = f"INSERT INTO traces ({', '.join(_COLUMNS)}) VALUES ({_PLACES})"  # noqa: S608 - constants
_SPAN_COLUMNS: Final = (
    "trace", "span_id", "parent_id", "rank", "name", "span_type", "status", "start_ns", "end_ns", "top", "resource", "brief",
    "item",
)  # fmt: skip
_INSERT_SPAN: Final = f"INSERT INTO spans ({', '.join(_SPAN_COLUMNS)}) VALUES ({', '.join('?' * len(_SPAN_COLUMNS))})"  # noqa: S608 - constants
_EXCLUDED: Final = ", ".join(f"{name} = excluded.{name}" for name in _SPAN_COLUMNS[2:])
_PUT_SPAN: Final = f"{_INSERT_SPAN} ON CONFLICT (trace, span_id) DO UPDATE SET {_EXCLUDED}"
_SPAN_ROW: Final = (
    "SELECT span_id, parent_id, rank, name, span_type, status, start_ns, end_ns, brief FROM spans WHERE trace = ?"
)
_PUT_DECISION: Final = f"INSERT OR IGNORE INTO decisions VALUES ({', '.join('?' * 17)})"  # noqa: S608 - constants
_ADD_CALLS: Final = f"INSERT OR REPLACE INTO calls VALUES ({', '.join('?' * 10)})"  # noqa: S608 - constants
_LABELS: Final = 8 * KIND_LABELS + ATTRIBUTE_LABELS

_sums: Final = msgspec.msgpack.Decoder(Sums)
_listed: Final = msgspec.msgpack.Decoder(dict[str, list[str]])
_encoder: Final = msgspec.msgpack.Encoder()


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

    def write(self, decisions: Sequence[Decision], changes: Sequence[TraceChange]) -> None:
        """Store decisions and changes. What is stored already changes nothing."""
        self.put_decisions(decisions)
        self.insert([change for change in changes if not self._merge(change)])

    def save(self) -> None:
        """Write the counters; the last call of a transaction."""
        self._counters.save(self._connection)
        self._connection.executemany(
            "UPDATE resources SET last_trace = max(last_trace, ?) WHERE id = ?",
            [(trace, resource) for resource, trace in self._used.items()],
        )

    def put_decisions(self, decisions: Sequence[Decision]) -> None:
        """Store decisions."""
        for kept in (True, False):
            rows = [_decision_values(one) for one in decisions if one.kept == kept]
            if rows:
                new = self._connection.executemany(_PUT_DECISION, rows).rowcount
                self._counters.add("kept" if kept else "dropped", max(new, 0))

    def insert(self, changes: Sequence[TraceChange]) -> None:
        """Store traces that are not stored yet."""
        lines: list[dict[str, object]] = []
        spans: list[tuple[object, ...]] = []
        documents: list[tuple[int, str]] = []
        labels: list[tuple[int, str]] = []
        calls: list[tuple[object, ...]] = []
        self.put_decisions([decision for change in changes for decision in change.decisions.values()])
        for change in changes:
            decisions = primary(change.decisions.values())
            trace = self._counters.next("last_trace")
            facts, listed = facts_of(change.spans), change.labels.listed()
            lines.append(self._line(change.trace_id, trace, decisions, facts, listed))
            tops = {row.span_id for row in tops_of(change.spans)}
            spans.extend(self._span_values(trace, row, row.span_id in tops) for row in change.spans.values())
            documents.append((trace, join_texts(text for texts in change.texts.values() for text in texts)))
            labels.append((trace, " ".join(sorted(change.labels.tokens()))))
            calls.extend(_call_values(trace, key, sums) for key, sums in calls_of(change.spans).items())
        connection = self._connection
        connection.executemany(_INSERT_TRACE, lines)
        connection.executemany(_INSERT_SPAN, spans)
        connection.executemany(_ADD_CALLS, calls)
        connection.executemany("INSERT INTO trace_text (rowid, text) VALUES (?, ?)", documents)
        connection.executemany("INSERT INTO trace_labels (rowid, labels) VALUES (?, ?)", labels)
        connection.executemany(
            "UPDATE decisions SET has_spans = 1 WHERE trace_id = ? AND decision_id = ?",
            [(change.trace_id, decision_id) for change in changes for decision_id in change.decisions],
        )
        self._counters.add("traces", len(lines))
        self._counters.add("spans", len(spans))

    def _merge(self, change: TraceChange) -> bool:
        """Add to a trace that is stored; False if it is not stored. What is stored already changes nothing."""
        connection = self._connection
        found = connection.execute(
            "SELECT id, sums, listed FROM traces WHERE trace_id = ?", (change.trace_id,)
        ).fetchone()
        if found is None:
            return False
        trace, sums, listed_before = found[0], _sums.decode(found[1]), _listed.decode(found[2])
        self.put_decisions(list(change.decisions.values()))
        decided = connection.executemany(
            "UPDATE decisions SET has_spans = 1 WHERE trace_id = ? AND decision_id = ? AND has_spans = 0",
            [(change.trace_id, decision_id) for decision_id in change.decisions],
        ).rowcount
        added, replaced = self._new_reports(trace, change)
        listed = merged_listed(listed_before, change.labels.listed())
        labelled = self._extend_labels(trace, change)
        if decided <= 0 and not added and not replaced and listed == listed_before and not labelled:
            return True
        if added or replaced:
            facts = self._extended_facts(trace, sums, added, replaced)
            self._extend_calls(trace, added, replaced)
            new = [*added.values(), *(new for _, new in replaced)]
            self._add_document(trace, [text for row in new for text in change.texts[row.span_id]])
        else:
            facts = self._facts(trace, sums)
        bodies = connection.execute("SELECT body FROM decisions WHERE trace_id = ? AND has_spans", (change.trace_id,))
        decisions = primary(decode_decisions(body)[0] for (body,) in bodies)
        self._update(trace, self._line(change.trace_id, trace, decisions, facts, listed))
        self._counters.add("spans", len(added))
        return True

    def _update(self, trace: int, line: dict[str, object]) -> None:
        """Change the columns that differ, because each index on a column that is set is written again."""
        names = _COLUMNS[1:-1]
        query = f"SELECT {', '.join(names)} FROM traces WHERE id = ?"  # noqa: S608 - constants
        before = dict(zip(names, self._connection.execute(query, (trace,)).fetchone(), strict=True))
        changed = [name for name in names if before[name] != line[name]]
        assignments = ", ".join(f"{name} = :{name}" for name in changed)
        self._connection.execute(f"UPDATE traces SET {assignments} WHERE id = :id", line)  # noqa: S608 - constants

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
        values = [self._span_values(trace, row, self._is_top(trace, row, added)) for row in new]
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
            self._connection.execute(_ADD_CALLS, _call_values(trace, key, sums))

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

    def _line(
        self, trace_id: bytes, trace: int, decisions: Sequence[Decision], facts: SpanFacts, listed: dict[str, list[str]]
    ) -> dict[str, object]:
        line = trace_columns(decisions, facts)
        _, duration = times_of(decisions, facts)
        return {
            **line,
            "duration_bar": duration_bar(duration),
            "decided_at_ms": min(decisions[0].decided_at_ms, 1 << 62),
            "session": next(iter(listed.get("session", ())), None),
            "listed": _encoder.encode(listed),
            "sums": _encoder.encode(facts.sums),
            "trace_id": trace_id,
            "id": trace,
            "stored": self._counters.next("stored"),
        }

    def _span_values(self, trace: int, row: SpanRow, top: bool) -> tuple[object, ...]:
        return (
            trace, row.span_id, row.parent_id, row.rank, row.name, row.span_type, row.status, row.start_ns, row.end_ns, top,
            self._resource(row.resource, trace), encode_brief(row.brief), row.item,
        )  # fmt: skip

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


def _decision_values(one: Decision) -> tuple[object, ...]:
    summary = one.summary
    status = STATUSES.index("error" if summary.errors else "success")
    tokens = int64(int64(summary.input_tokens) + int64(summary.output_tokens))
    return (
        one.trace_id, one.decision_id, one.kept, 0, min(one.decided_at_ms, 1 << 62), summary.root_name[:LABEL_CHARS],
        summary.service[:LABEL_CHARS], int64(summary.start_ns), int64(summary.duration_ns), int64(summary.spans), status,
        int64(summary.input_tokens), int64(summary.output_tokens), tokens, summary.cost_usd, one.policy[:LABEL_CHARS],
        encode_decisions([one]),
    )  # fmt: skip


def _call_values(trace: int, key: tuple[Any, str], sums: CallSums) -> tuple[object, ...]:
    return (
        trace, KINDS.index(key[0]), key[1], sums.calls, sums.errors, int64(sums.input_tokens), int64(sums.output_tokens),
        sums.priced, sums.cost_usd, sums.packed(),
    )  # fmt: skip


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
