"""The parameters of a list in the URL."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.query import TraceQuery
from prela_stream.web.parameters import NAMES, read_parameters

NOW = 1_795_000_000_000_000_000
HOUR = 3_600_000_000_000


def test_every_parameter_becomes_its_condition() -> None:
    pairs = {
        "q": "coral reefs",
        "status": "error",
        "service": "travel",
        "name": "trip*",
        "session": "s-1",
        "user": "u-1",
        "model": "model-a",
        "tool": "search",
        "error_type": "TimeoutError",
        "policy": "errors",
        "attr": "city=Lisbon",
        "since": "2h",
        "until": "1795000000000",
        "min": "1.5s",
        "max": "2m",
        "tokens": "1000",
        "cost": "$0.5",
        "sort": "slowest",
        "after": "cursor",
    }
    wanted = read_parameters(pairs.items(), NOW)
    assert wanted.query == TraceQuery(
        text="coral reefs",
        errors=True,
        service="travel",
        name="trip*",
        session="s-1",
        user="u-1",
        model="model-a",
        tool="search",
        error_type="TimeoutError",
        policy="errors",
        attributes=("city=Lisbon",),
        since_ns=NOW - 2 * HOUR,
        until_ns=NOW,
        min_duration_ms=1_500,
        max_duration_ms=120_000,
        min_tokens=1_000,
        min_cost_usd=0.5,
    )
    assert (wanted.sort, wanted.after) == ("slowest", "cursor")
    assert set(pairs) | {"dropped"} == set(NAMES)


def test_a_changed_list_begins_at_its_first_page() -> None:
    wanted = read_parameters([("service", "travel"), ("after", "cursor"), ("sort", "oldest")], NOW)
    assert wanted.but(service=None) == {"sort": "oldest"}
    assert wanted.but(status="error") == {"service": "travel", "sort": "oldest", "status": "error"}
    assert wanted.conditions == [("service", "travel")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sort", "best"),
        ("status", "bad"),
        ("since", "yesterday"),
        ("until", "9999999999999999999"),
        ("min", "1.5"),
        ("max", "-1s"),
        ("tokens", "many"),
        ("cost", "nan"),
        ("attr", "city"),
    ],
)
def test_a_wrong_value_names_its_parameter(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: expected"):
        read_parameters([(name, value)], NOW)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=40)), max_size=8))
def test_no_text_does_more_than_be_refused(pairs: list[tuple[str, str]]) -> None:
    with suppress(ConfigurationError):
        wanted = read_parameters(pairs, NOW)
        assert read_parameters(wanted.values.items(), NOW).query == wanted.query
