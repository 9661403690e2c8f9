"""The sink contract over every type of the registry: one row for each."""

import inspect
import json
import pkgutil
from importlib import import_module
from typing import Any

import prela_stream.sinks
from prela_stream.sinks.registry import SINK_TYPES
from tests.contracts.reader_contract import ReaderContract
from tests.contracts.sink_contract import METHODS, SinkContract, Written


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


ROWS = [row for row in list(globals().values()) if isinstance(row, type) and hasattr(row, "type")]


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
    found.pop("prela_stream.sinks.base:Sink")
    missing = found.keys() - {kind.sink for kind in SINK_TYPES.values()}
    assert not missing, f"SINK_TYPES in sinks/registry.py has no line for {', '.join(missing)}"
