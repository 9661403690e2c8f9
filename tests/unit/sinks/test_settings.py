"""The `[[sink]]` tables of the settings: names, types, options, defaults, and every mistake with its path."""

import json
from pathlib import Path
from typing import Any

import pytest

from prela_stream.config import load_settings
from prela_stream.errors import ConfigurationError
from prela_stream.sinks.registry import SINK_TYPES, load, options_type
from prela_stream.sinks.settings import read_sinks


def test_without_a_table_there_is_one_sqlite_store_in_the_directory(tmp_path: Path) -> None:
    (sink,) = load_settings(env={"PRELA_DIRECTORY": str(tmp_path)}).sink
    assert (sink.name, sink.type, sink.group, sink.options.path) == (
        "sqlite",
        "sqlite",
        "sinks.sqlite",
        str(tmp_path / "traces.db"),
    )


def test_tables_of_a_file_and_of_a_variable_are_the_same_sinks(tmp_path: Path) -> None:
    file = tmp_path / "prela.toml"
    file.write_text('[[sink]]\nname = "main"\nretention_days = 30\n[[sink]]\nname = "copy"\npath = "copy.db"\n')
    from_file = load_settings(file, {}).sink
    assert [(sink.name, sink.type, sink.options.retention_days) for sink in from_file] == [
        ("main", "sqlite", 30.0),
        ("copy", "sqlite", 7.0),
    ]
    assert from_file[1].options.path == str(tmp_path / "copy.db")
    variable = json.dumps([{"name": "main", "retention_days": 30}, {"name": "copy", "path": str(tmp_path / "copy.db")}])
    assert load_settings(env={"PRELA_SINK": variable}).sink == from_file
    assert read_sinks([sink.table() for sink in from_file], "elsewhere").sinks == from_file


@pytest.mark.parametrize(
    ("tables", "path", "problem"),
    [
        ({"type": "sqlite"}, "sink", "write [[sink]]"),
        ("sqlite", "sink", "write [[sink]]"),
        (["sqlite"], "sink[0]", "expected a table"),
        ([{}, {"type": "sqlit"}], "sink[1].type", 'got "sqlit"; did you mean sqlite?'),
        ([{"type": 5}], "sink[0].type", "got 5"),
        ([{"name": "a b"}], "sink[0].name", 'got "a b"'),
        ([{"name": ""}], "sink[0].name", 'got ""'),
        ([{}, {"path": "b"}], "sink[1].name", 'the name "sqlite" is used twice'),
        ([{}, {"name": "b"}], "sink[1].path", 'is also the path of the sink "sqlite"'),
        ([{"pat": "a"}], "sink[0].pat", "unknown key; did you mean path?"),
        ([{"path": 5}], "sink[0].path", "expected a string, got 5"),
    ],
)
def test_a_mistake_has_its_path(tables: Any, path: str, problem: str) -> None:
    (mistake,) = read_sinks(tables, "folder").mistakes
    assert mistake[0] == path
    assert problem in mistake[1]


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env={"PRELA_SINK": '[{"pat": 1, "retention_days": "x"}, {"type": "none"}]'})
    assert [word in str(caught.value) for word in ("sink[0].pat", "sink[0].retention_days", "sink[1].type")] == [
        True
    ] * 3
    with pytest.raises(ConfigurationError, match="PRELA_SINK: expected a JSON array of tables"):
        load_settings(env={"PRELA_SINK": "sqlite"})


def test_the_former_section_names_its_successor(tmp_path: Path) -> None:
    file = tmp_path / "prela.toml"
    file.write_text('[store]\npath = "x.db"\n')
    with pytest.raises(ConfigurationError, match=r"store: unknown key; the store is a sink, write \[\[sink\]\]"):
        load_settings(file, {})


@pytest.mark.parametrize("kind", SINK_TYPES)
def test_the_registry_names_what_exists(kind: str) -> None:
    found = SINK_TYPES[kind]
    assert callable(load(found.sink)), f"{found.sink} of the type {kind} is no class"
    assert found.reader is None or callable(load(found.reader))
    options = options_type(kind)
    assert options.__struct_config__.frozen, f"the options of {kind} are not frozen"
    assert options.__struct_config__.forbid_unknown_fields, f"the options of {kind} do not forbid unknown fields"
    assert options() is not None, f"an option of {kind} has no default"
    assert ("path" in options.__struct_fields__) == (found.path is not None), f"the default of `path` of {kind}"
