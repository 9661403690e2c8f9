"""The tables of the ClickHouse store, and the connection.

Lists read slim rows (`traces`, `spans`), and bodies are in `span_bodies`. Every table replaces a row by a later one with the
same key, so that a batch may be written again. Partitions are days of decisions, so that TTL drops whole parts. `trace_words` has
the text index.
"""

import os
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from prela_stream.errors import ConfigurationError, QueryTimeoutError, SinkError
from prela_stream.sinks.clickhouse.options import ClickhouseOptions

TABLES: Final[dict[str, tuple[str, str, str]]] = {
    "traces": (
        """
        trace_id String, decision_id String, root_name String, service LowCardinality(String), start_ns Int64, duration_ns Int64,
        duration_bar Int16, spans UInt32, errors Int64, status Int8, input_tokens Int64, output_tokens Int64, tokens Int64,
        cost_usd Nullable(Float64), policy LowCardinality(String), kept_because String, weight Float64,
        trigger LowCardinality(String), complete UInt8, session String, listed String, labels Array(String),
        decisions Array(String), stored UInt64, decided Date,
        INDEX of_labels labels TYPE bloom_filter(0.01) GRANULARITY 1, INDEX of_start start_ns TYPE minmax GRANULARITY 1,
        INDEX of_session session TYPE bloom_filter(0.01) GRANULARITY 1
        """,
        "stored",
        "trace_id",
    ),
    "spans": (
        """
        trace_id String, span_id String, parent_id Nullable(String), rank UInt64, name String, span_type Int8, status Int8,
        start_ns Int64, end_ns Int64, brief String, call LowCardinality(String), call_name String, input_tokens Int64,
        output_tokens Int64, cost_usd Nullable(Float64), decided Date
        """,
        "rank",
        "trace_id, span_id",
    ),
    "span_bodies": (
        "trace_id String, span_id String, rank UInt64, resource String CODEC(ZSTD(3)), item String CODEC(ZSTD(3)), decided Date",
        "rank",
        "trace_id, span_id",
    ),
    "trace_words": (
        """
        trace_id String, part String, words String CODEC(ZSTD(3)), written UInt64, decided Date,
        INDEX of_words words TYPE text(tokenizer = 'splitByNonAlpha')
        """,
        "written",
        "trace_id, part",
    ),
    "decisions": (
        """
        trace_id String, decision_id String, kept UInt8, root_name String, service LowCardinality(String), start_ns Int64,
        duration_ns Int64, spans Int64, status Int8, input_tokens Int64, output_tokens Int64, tokens Int64,
        cost_usd Nullable(Float64), policy LowCardinality(String), body String, written UInt64, decided Date
        """,
        "written",
        "trace_id, decision_id",
    ),
}
"""Columns, the column with the highest value of which a row wins, and the key."""


class Connection:
    """A client of one database, used by one thread at a time. Errors are SinkErrors, with the address and without the password.

    Args:
        options: The server and the database.
        create: Create the database and the tables that are missing.
    """

    def __init__(self, options: ClickhouseOptions, *, create: bool) -> None:
        self.options = options
        self._create = create
        self._client: Any = None

    def open(self) -> None:
        """Connect and create what is missing."""
        if self._client is not None:
            return
        self._client = _client(self.options)
        if not self._create:
            return
        try:
            self.command(f"CREATE DATABASE IF NOT EXISTS {self.options.database}")
            for name, (columns, version, key) in TABLES.items():
                self.command(
                    f"CREATE TABLE IF NOT EXISTS {self.options.database}.{name} ({columns})"
                    f" ENGINE = ReplacingMergeTree({version}) PARTITION BY decided ORDER BY ({key})"
                    f" TTL decided + INTERVAL {self.options.retention_days} DAY"
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def command(self, text: str) -> None:
        """Run a statement."""
        self._do(lambda: self._client.command(text))

    def insert(self, table: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
        """Insert rows; the server gathers small inserts of several sinks, and answers when they are stored."""
        if rows:
            settings = {} if self.options.url.startswith("chdb:") else {"async_insert": 1, "wait_for_async_insert": 1}
            name = f"{self.options.database}.{table}"
            self._do(lambda: self._client.insert(name, rows, column_names=list(columns), settings=settings))

    def query(
        self, text: str, values: dict[str, object], binary: tuple[str, ...] = (), seconds: float | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows of a query. `{db}` is the database, `%(name)s` a value; the columns in `binary` are bytes."""
        settings = {} if seconds is None else {"max_execution_time": seconds, "timeout_overflow_mode": "throw"}
        found = self._do(
            lambda: self._client.query(
                text.replace("{db}", self.options.database),
                parameters=values,
                settings=settings,
                column_formats=dict.fromkeys(binary, "bytes"),
            )
        )
        return [tuple(row) for row in found.result_rows]

    def _do(self, call: Any) -> Any:
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            return call()
        except (ClickHouseError, OSError) as error:
            self.close()  # the next attempt connects again, and creates what is missing
            if not self._create and ("UNKNOWN_DATABASE" in str(error) or "UNKNOWN_TABLE" in str(error)):
                msg = (
                    f"there is no trace store in the database {self.options.database} of ClickHouse at {address(self.options)}: "
                    "start `prela-stream sink` first"
                )
                raise ConfigurationError(msg) from error
            if "TIMEOUT_EXCEEDED" in str(error):
                msg = (
                    f"the query of ClickHouse took longer than {self.options.query_s:g} s and was stopped: narrow it, for "
                    "instance by time, or raise query_s of the sink"
                )
                raise QueryTimeoutError(msg) from error
            msg = f"ClickHouse at {address(self.options)} failed: {str(error)[:500]}"
            raise SinkError(msg) from error


def address(options: ClickhouseOptions) -> str:
    """The address for messages, without user and password."""
    parts = urlsplit(options.url)
    return f"{parts.scheme}://{parts.path if parts.scheme == 'chdb' else parts.netloc.rpartition('@')[2]}"


def _client(options: ClickhouseOptions) -> Any:
    try:
        import clickhouse_connect
        from clickhouse_connect.driver.exceptions import ClickHouseError
    except ImportError as error:
        msg = "a sink of type clickhouse needs clickhouse-connect: pip install 'prela-stream[clickhouse]'"
        raise ConfigurationError(msg) from error
    parts = urlsplit(options.url)
    try:
        if parts.scheme == "chdb":
            return clickhouse_connect.get_client(interface="chdb", path=unquote(parts.path))
        return clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname or "127.0.0.1",
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            username=unquote(parts.username or "default"),
            password=os.environ.get(options.password_variable) or unquote(parts.password or ""),
            autogenerate_session_id=False,
        )
    except ImportError as error:
        msg = f"{options.url} needs chdb: pip install chdb"
        raise ConfigurationError(msg) from error
    except (ClickHouseError, OSError) as error:
        msg = f"cannot connect to ClickHouse at {address(options)}: {str(error)[:500]}"
        raise SinkError(msg) from error
