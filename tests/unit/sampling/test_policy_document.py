"""docs/policies.md is true: its files load, its defaults are the built-in ones, its table is the registry."""

import re
from pathlib import Path

import msgspec
import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.model.decision import probability_of, threshold_of
from prela_stream.sampling.policyset import DEFAULT_TEXT, load_policies
from prela_stream.sampling.registry import POLICIES

TEXT = (Path(__file__).parents[3] / "docs" / "policies.md").read_text(encoding="utf-8")
FILES = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_files_on_the_page_load_and_one_of_them_is_the_built_in() -> None:
    loaded = [load_policies(text, source="docs/policies.md") for text in FILES]
    assert [len(found.policies) for found in loaded] == [5, 4]
    assert FILES[1] == DEFAULT_TEXT


def test_every_type_stands_in_the_table_with_all_its_settings() -> None:
    section = TEXT.split("## Types")[1]
    table = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \| (.*?) \| ", section, flags=re.MULTILINE)}
    table.pop("type")  # the header
    assert list(table) == list(POLICIES)
    tests = set(re.findall(r"^\| `(\w+) = ", section, flags=re.MULTILINE)) | {"max"}
    for kind, settings in table.items():
        names = set(re.findall(r"`(\w+)`", settings)) | (tests if kind == "attribute" else set())
        assert names | {"name"} == {field.name for field in msgspec.structs.fields(POLICIES[kind])}, kind


def test_the_mistakes_on_the_page_are_those_of_such_a_file() -> None:
    shown = re.search(r"```text\n(.*?)\n```", TEXT, flags=re.DOTALL)
    assert shown is not None
    text = """
        [[policy]]
        type = "latency"
        min_mss = 1
        [[policy]]
        type = "status"
        [[policy]]
        type = "or"
        policies = [{type = "always", probability = 10}]
    """
    with pytest.raises(ConfigurationError) as caught:
        load_policies(text, source="policies.toml")
    assert str(caught.value) == shown[1]


def test_the_rounding_on_the_page_is_right() -> None:
    assert "0.1 to 0.100006 for instance" in TEXT
    assert round(probability_of(threshold_of(0.1)), 6) == 0.100006
