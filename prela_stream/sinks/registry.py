"""The types of sinks: what `type = "…"` in a `[[sink]]` table may be.

The registry holds import paths and not classes, so that a process imports only the sinks that its settings name, and so that
only `app` imports a sink. A new sink is one module, one line here and one row in tests/contracts/test_sinks.py.
"""

from importlib import import_module
from typing import Any, Final

import msgspec


class SinkType(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of a sink are, each as `module:name`."""

    sink: str
    """The class; its constructor takes the options. See `sinks.base.Sink`."""
    options: str
    """The Struct of its options: frozen, unknown fields forbidden, a default for each. See `sinks.settings`."""
    reader: str | None = None
    """The TraceReader of a sink that is a store; its constructor takes the options. None: what was written cannot be read."""
    check: str | None = None
    """What `doctor` calls with the name of the check and the options of a sink on a server; returns a Finding, and blocks."""
    records: int = 1_000
    """The most records of a batch; a store that prefers large inserts has more."""
    path: str | None = None
    """The default of the option `path`, within the directory of the settings; None for a sink without this option."""
    needs_transport: bool = False
    """Whether the constructor takes the transport too, which this sink writes to."""


SINK_TYPES: Final[dict[str, SinkType]] = {
    "sqlite": SinkType(
        sink="prela_stream.sinks.sqlite.sink:SqliteSink",
        options="prela_stream.sinks.sqlite.options:SqliteOptions",
        reader="prela_stream.sinks.sqlite.reader:SqliteReader",
        records=2_000,
        path="traces.db",
    ),
    "jsonl": SinkType(
        sink="prela_stream.sinks.jsonl:JsonlSink", options="prela_stream.sinks.jsonl:JsonlOptions", path="jsonl"
    ),
    "clickhouse": SinkType(
        sink="prela_stream.sinks.clickhouse.sink:ClickhouseSink",
        options="prela_stream.sinks.clickhouse.options:ClickhouseOptions",
        reader="prela_stream.sinks.clickhouse.reader:ClickhouseReader",
        check="prela_stream.sinks.clickhouse.check:check_server",
        records=10_000,
    ),
    "otlp": SinkType(sink="prela_stream.sinks.otlp:OtlpSink", options="prela_stream.sinks.otlp:OtlpOptions"),
    "kafka-otlp": SinkType(
        sink="prela_stream.sinks.kafka_otlp:KafkaOtlpSink",
        options="prela_stream.sinks.kafka_otlp:KafkaOtlpOptions",
        needs_transport=True,
    ),
    "parquet": SinkType(
        sink="prela_stream.sinks.parquet:ParquetSink",
        options="prela_stream.sinks.parquet:ParquetOptions",
        path="parquet",
    ),
}


def load(path: str) -> Any:
    """Import what `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def options_type(kind: str) -> type[msgspec.Struct]:
    """The options Struct of a type of sinks; raises KeyError for an unknown type."""
    found: type[msgspec.Struct] = load(SINK_TYPES[kind].options)
    return found
