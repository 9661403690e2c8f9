"""The registry holds import paths: an instrumentor is imported when it is used, and every path leads to one."""

import json
import subprocess
import sys

import pytest

from prela_stream.errors import ConfigurationError
from prela_stream.instrumentation.registry import INSTRUMENTORS, auto_instrument, instrumentor
from prela_stream.tracing.tracer import Tracer


def test_every_path_leads_to_an_instrumentor_of_that_name() -> None:
    for name in INSTRUMENTORS:
        one = instrumentor(name)
        assert one.name == name
        assert instrumentor(name) is one
        assert all(callable(getattr(one, method)) for method in ("is_available", "instrument", "uninstrument"))


def test_the_registry_imports_no_instrumentor() -> None:
    code = (
        "import json, sys; import prela_stream.instrumentation.registry as registry; "
        "print(json.dumps([path.partition(':')[0] in sys.modules for path in registry.INSTRUMENTORS.values()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [False] * len(INSTRUMENTORS)


@pytest.mark.parametrize("names", ["anthropic", 7, {"anthropic": True}])
def test_names_are_a_list(names: object) -> None:
    with pytest.raises(ConfigurationError, match="named in a list"):
        auto_instrument(names=names)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("names", [["openia"], [None], [b"anthropic"]])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"there are .*anthropic"):
        auto_instrument(names=names)


def test_a_tracer_is_a_tracer() -> None:
    with pytest.raises(ConfigurationError, match="takes a Tracer"):
        auto_instrument(Tracer)  # type: ignore[arg-type]  # the class instead of an instance
