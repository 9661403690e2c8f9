"""The sink contract over every type of the registry: one row for each."""

import inspect
import json
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import prela_stream.sinks
from prela_stream.sinks.base import GroupingSink, Sink
from prela_stream.sinks.kafka_otlp import KafkaOtlpSink
from prela_stream.sinks.registry import SINK_TYPES
from prela_stream.transport.base import TopicPartition
from prela_stream.transport.local import LocalTransport
from prela_stream.transport.options import LocalOptions
from tests.contracts.clickhouse_row import ClickhouseRow
from tests.contracts.reader_contract import ReaderContract
from tests.contracts.sink_contract import METHODS, SinkContract, Written
from tests.contracts.transport_harness import everything
from tests.support.otlp_server import OtlpServer, attributes_of, otlp_server, spans_of


class TestSqlite(ReaderContract):
    type = "sqlite"


class TestJsonl(SinkContract):
    type = "jsonl"

    async def written(self) -> list[Written]:
        files = sorted((self.folder / "jsonl").glob("*.jsonl"))
        texts = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line]
        lines: list[dict[str, Any]] = list(map(json.loads, texts))
        return [
            Written(
                trace_id=line["trace_id"],
                span_id=span["span_id"],
                revision=span["revision"],
                status=span["status"],
                name=span["name"],
                service=span["resource"]["service.name"],
                city=span["attributes"].get("city", ""),
                weight=line["weight"],
                policy=line["policy"],
            )
            for line in lines
            for span in line["spans"]
        ]


class TestOtlp(SinkContract):
    type = "otlp"

    @pytest.fixture
    def destination(self) -> Iterator[OtlpServer]:
        with otlp_server() as self.server:
            yield self.server

    def options(self, folder: Path) -> dict[str, Any]:
        return {"endpoint": self.server.endpoint}

    @contextmanager
    def fault(self) -> Iterator[None]:
        before, self.server.answer = self.server.answer, lambda _: (503, {}, b"")
        yield
        self.server.answer = before

    async def written(self) -> list[Written]:
        return [_written(*found) for found in self.server.spans()]


class TestKafkaOtlp(SinkContract):
    """On the local transport; tests/integration/test_kafka_otlp.py has a real Kafka."""

    type = "kafka-otlp"

    def log(self) -> LocalTransport:
        return LocalTransport(LocalOptions(path=str(self.folder / "log.db")))

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[Sink]:
        async with self.log() as transport:
            sink = KafkaOtlpSink(self.settings.options, transport)
            try:
                yield sink
            finally:
                await sink.aclose()

    async def written(self) -> list[Written]:
        async with self.log() as transport:
            partitions = [TopicPartition("otlp_spans", number) for number in range(4)]
            records = await everything(transport, *partitions)
            requests = [ExportTraceServiceRequest.FromString(one.value or b"") for part in records for one in part]
        return [_written(*found) for found in spans_of(requests)]


def _written(resource: dict[str, Any], _: str, span: Span) -> Written:
    attributes = attributes_of(span)
    failed = span.status.code == span.status.STATUS_CODE_ERROR
    return Written(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        revision=attributes.get("prela.revision", 0),
        status="ERROR" if failed else attributes.get("prela.status", "SUCCESS"),
        name=span.name,
        service=resource["service.name"],
        city=attributes.get("city", ""),
        weight=attributes["prela.weight"],
        policy=attributes["prela.policy"],
    )


class TestParquet(SinkContract):
    type = "parquet"

    async def written(self) -> list[Written]:
        query = "SELECT * FROM read_parquet(?, hive_partitioning = true)"
        if not list(self.folder.glob("parquet/spans/*/*/*.parquet")):
            return []
        with duckdb.connect() as connection:
            found = connection.execute(query, [str(self.folder / "parquet/spans/*/*/*.parquet")])
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return [
            Written(
                trace_id=row["trace_id"],
                span_id=row["span_id"],
                revision=row["revision"],
                status=row["status"],
                name=row["name"],
                service=row["service_name"],
                city=json.loads(row["attributes"]).get("city", ""),
                weight=row["weight"],
                policy=row["policy"],
            )
            for row in rows
        ]


ROWS = [
    ClickhouseRow,
    *(row for row in list(globals().values()) if isinstance(row, type) and hasattr(row, "type")),
]  # the tests of ClickhouseRow are in test_clickhouse.py


def test_every_type_of_the_registry_has_a_row() -> None:
    rows = {row.type for row in ROWS if issubclass(row, SinkContract)}
    missing = SINK_TYPES.keys() - rows
    assert not missing, f"no row in {__name__} has the type {', '.join(missing)}"
    unknown = rows - SINK_TYPES.keys()
    assert not unknown, f"SINK_TYPES in sinks/registry.py has no {', '.join(unknown)}"


def test_the_row_of_a_store_is_a_store_contract() -> None:
    stores = {name for name, kind in SINK_TYPES.items() if kind.reader is not None}
    rows = {row.type for row in ROWS if issubclass(row, ReaderContract)}
    assert rows == stores, f"rows that are ReaderContracts: {rows}; types with a reader: {stores}"


def test_every_sink_of_the_package_is_in_the_registry() -> None:
    found = {}
    for module in pkgutil.walk_packages(prela_stream.sinks.__path__, "prela_stream.sinks."):
        for name, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            if kind.__module__ == module.name and name.endswith("Sink") and hasattr(kind, METHODS[0]):
                found[f"{module.name}:{name}"] = kind
    for interface in (Sink, GroupingSink):
        found.pop(f"{interface.__module__}:{interface.__name__}")
    missing = found.keys() - {kind.sink for kind in SINK_TYPES.values()}
    assert not missing, f"SINK_TYPES in sinks/registry.py has no line for {', '.join(missing)}"
