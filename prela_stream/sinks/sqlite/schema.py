"""The tables of the SQLite store, and how its connections are opened.

A trace is one row of `traces`, with the columns of a trace list. A span is one row of `spans`, with the item as the agent wrote
it. `trace_text` is the full-text index with one document for each trace. `decisions` has dropped traces too. Offsets are stored
beside the data, so that one transaction changes both.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.sinks.sqlite.migration import OLDEST, convert
from prela_stream.sinks.sqlite.names import matches
from prela_stream.sinks.sqlite.rollups import create_rollups
from prela_stream.sinks.sqlite.transactions import transaction

VERSION: Final = 3
APPLICATION_ID: Final = 0x50524C41  # "PRLA"; marks the file as a trace store
_BUSY_S: Final = 5.0
"""How long SQLite waits for a lock. The service of the sink tries again after that."""
PAGE_BYTES: Final = 512
"""The least size of a store: SQLite writes the first page when it creates the file, and no page is smaller."""

# Each sort of the list has a covering index. A walk in its order tests the filters without reading the table, so that a page of a
# million traces takes less than 100 ms.
_TESTED: Final = "start_ns, duration_ns, root_name, policy, status, tokens, cost_usd"
TABLES: Final = f"""
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('last_trace', 0), ('stored', 0), ('traces', 0), ('spans', 0), ('kept', 0), ('dropped', 0);

CREATE TABLE offsets (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    trace_id BLOB NOT NULL UNIQUE,
    decision_id BLOB NOT NULL,
    root_name TEXT NOT NULL,
    service TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    duration_bar INTEGER NOT NULL,
    spans INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    status INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost_usd REAL,
    policy TEXT NOT NULL,
    kept_because TEXT NOT NULL,
    weight REAL NOT NULL,
    trigger TEXT NOT NULL,
    complete INTEGER NOT NULL,
    session TEXT,
    decided_at_ms INTEGER NOT NULL,
    listed BLOB NOT NULL,
    sums BLOB NOT NULL,
    stored INTEGER NOT NULL
);
CREATE UNIQUE INDEX traces_stored ON traces (stored);
CREATE INDEX traces_newest ON traces (start_ns, id, duration_bar, {_TESTED});
CREATE INDEX traces_slowest ON traces (duration_ns, id, {_TESTED});
CREATE INDEX traces_costliest ON traces (cost_usd, id, {_TESTED});
CREATE INDEX traces_most_tokens ON traces (tokens, id, {_TESTED});
CREATE INDEX traces_most_spans ON traces (spans, id, {_TESTED});
CREATE INDEX traces_root_name ON traces (root_name, start_ns, id);
CREATE INDEX traces_policy ON traces (policy, start_ns, id);
CREATE INDEX traces_status ON traces (status, start_ns, id);
CREATE INDEX traces_session ON traces (session, start_ns, id) WHERE session IS NOT NULL;

CREATE TABLE resources (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, last_trace INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX resources_last_trace ON resources (last_trace);

CREATE TABLE spans (
    trace INTEGER NOT NULL,
    span_id BLOB NOT NULL,
    parent_id BLOB,
    rank INTEGER NOT NULL,
    name TEXT NOT NULL,
    span_type INTEGER NOT NULL,
    status INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL,
    top INTEGER NOT NULL,
    resource INTEGER,
    brief BLOB NOT NULL,
    item BLOB NOT NULL
);
CREATE UNIQUE INDEX spans_id ON spans (trace, span_id);
CREATE INDEX spans_top ON spans (trace, parent_id) WHERE top;

CREATE TABLE calls (
    trace INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    priced INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    durations BLOB NOT NULL,
    PRIMARY KEY (trace, kind, name)
) WITHOUT ROWID;

CREATE TABLE decisions (
    trace_id BLOB NOT NULL,
    decision_id BLOB NOT NULL,
    kept INTEGER NOT NULL,
    has_spans INTEGER NOT NULL,
    decided_at_ms INTEGER NOT NULL,
    root_name TEXT NOT NULL,
    service TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    spans INTEGER NOT NULL,
    status INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    cost_usd REAL,
    policy TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (trace_id, decision_id)
) WITHOUT ROWID;
CREATE INDEX decisions_age ON decisions (decided_at_ms);
CREATE INDEX decisions_newest ON decisions (start_ns, kept, {_TESTED[10:]}, service, spans, input_tokens, output_tokens);

CREATE VIRTUAL TABLE trace_text USING fts5 (text, columnsize = 0, tokenize = "unicode61 remove_diacritics 2");
CREATE VIRTUAL TABLE late_text USING fts5 (trace UNINDEXED, text, columnsize = 0, tokenize = "unicode61 remove_diacritics 2");
CREATE TABLE late_documents (trace INTEGER NOT NULL, document INTEGER NOT NULL, PRIMARY KEY (trace, document)) WITHOUT ROWID;
CREATE VIRTUAL TABLE trace_labels USING fts5 (labels, detail = none, columnsize = 0, tokenize = "ascii");
INSERT INTO trace_text (trace_text, rank) VALUES ('hashsize', 8388608);
"""  # noqa: S608 - constants


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the store; it is created (0600, with its folder) if it is missing.

    Raises:
        SinkError: It cannot be opened now: a full disk, a lock, missing permissions.
        ConfigurationError: The file belongs to another program or to a newer release.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        msg = f"cannot open the trace store {path}: {error.strerror}. Check its folder, its owner and its permissions"
        raise SinkError(msg) from error
    with _open_errors(path):
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _configure(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open an existing store read-only.

    Raises:
        SinkError: It cannot be opened now.
        ConfigurationError: There is none, or the file belongs to another program or to a newer release.
    """
    if not path.exists():
        raise ConfigurationError(_missing(path))
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with _open_errors(path):
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            version = layout_of(connection, path)
            if version is None:
                raise ConfigurationError(_missing(path))
            if version != VERSION:
                msg = (
                    f"the trace store {path} has layout version {version}, this release reads version {VERSION}: start "
                    "`prela-stream dev` or `prela-stream sink` once, which converts it"
                )
                raise ConfigurationError(msg)
            connection.create_function("matches", 2, matches, deterministic=True)
            connection.execute("PRAGMA query_only = 1")
            connection.execute("PRAGMA mmap_size = 268435456")
        except BaseException:
            connection.close()
            raise
    return connection


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an offset that the store reports must survive a power cut
    # Some builds zero each page that a merge of the full-text index frees.
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute(
        "PRAGMA wal_autocheckpoint = 8192"
    )  # pages; an index page that changes often is then copied rarely
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if layout_of(connection, path) == VERSION:
        return
    with transaction(connection):  # two services may open a new or an earlier store at the same moment
        version = layout_of(connection, path)
        if version is None:
            create_tables(connection)
        elif version == VERSION - 1:  # it lacks nothing but the sums
            create_rollups(connection)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            convert(connection, path, lambda: create_tables(connection))


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of this layout, within a transaction."""
    for statement in TABLES.split(";\n"):
        connection.execute(statement)
    create_rollups(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def layout_of(connection: sqlite3.Connection, path: Path) -> int | None:
    """The version of the layout; None: the file is empty. Raises ConfigurationError for another program's or a newer one."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        return None
    if application_id != APPLICATION_ID:
        msg = f"{path} is an SQLite file of another program, no trace store: set another `path` for the sink"
        raise ConfigurationError(msg)
    if not OLDEST <= version <= VERSION:
        msg = (
            f"the trace store {path} has layout version {version}, this release reads version {VERSION}: "
            "install the release that wrote it, or set another `path` for the sink"
        )
        raise ConfigurationError(msg)
    return int(version)


@contextmanager
def _open_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            msg = f"{path} is no SQLite file: set another `path` for the sink"
            raise ConfigurationError(msg) from error
        msg = f"cannot open the trace store {path}: {error}. Check its disk, its owner and its permissions"
        raise SinkError(msg) from error


def _missing(path: Path) -> str:
    return (
        f"there is no trace store at {path}: start `prela-stream dev` (everything in one process) or `prela-stream sink` "
        "first, or name its folder with --dir"
    )
