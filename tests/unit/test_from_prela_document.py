"""docs/from-prela.md names everything that the ancestor offered, and what it states about this package is true."""

import importlib.util
import inspect
import logging
import re
from pathlib import Path
from typing import Any

import pytest

import prela_stream
from prela_stream import config
from prela_stream.compat.prela import AncestorOptions
from prela_stream.errors import ConfigurationError

TEXT = (Path(__file__).parents[2] / "docs" / "from-prela.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \| (same|better|left out) \| (.*?) ?\|$", TEXT, re.MULTILINE)
READ_BY_INIT = {"PRELA_AUTO_INSTRUMENT", "PRELA_DEBUG", "PRELA_PROJECT_ID"}


def parameters(of: Any) -> list[str]:
    return [name for name in inspect.signature(of).parameters if name != "self"]


def ancestors_surface() -> set[str]:
    """Every public name, argument and variable of the package that is installed."""
    prela = importlib.import_module("prela")
    core = importlib.import_module("prela.core")
    context = importlib.import_module("prela.core.context")
    names = {*prela.__all__, *core.__all__}
    names |= {
        name for name, one in vars(context).items() if inspect.isfunction(one) and one.__module__ == context.__name__
    }
    for function in ("init", "trace", "new_trace_context", "auto_instrument"):
        names |= {f"{function}({one})" for one in parameters(getattr(prela, function))}
    for kind in ("Tracer", "Span", "SpanEvent", "TraceContext", "ProbabilitySampler", "RateLimitingSampler"):
        cls = getattr(prela, kind)
        names |= {f"{kind}({one})" for one in parameters(cls)}
        names |= {f"{kind}.{member}" for member in dir(cls) if not member.startswith("_")}
    for kind, methods in {
        "Tracer": ("span", "start_span"),
        "Span": ("set_attribute", "add_event", "set_status", "end"),
    }.items():
        for method in methods:
            names |= {f"{kind}.{method}({one})" for one in parameters(getattr(getattr(prela, kind), method))}
    sources = Path(prela.__file__ or "").parent.rglob("*.py")
    return names | {
        found for path in sources for found in re.findall(r"PRELA_[A-Z0-9_]+", path.read_text(encoding="utf-8"))
    }


@pytest.mark.skipif(importlib.util.find_spec("prela") is None, reason="prela 0.1.0 is in the test group")
def test_the_table_has_each_name_of_the_ancestor_once_and_no_other() -> None:
    named = [name for name, _, _ in ROWS]
    assert len(named) == len(set(named))
    assert set(named) == ancestors_surface()


def is_there(name: str) -> bool:
    """Whether a name of the table exists on our side."""
    if name.startswith("PRELA_"):
        return name in config.variables() or name in READ_BY_INIT
    path, _, argument = name.partition("(")
    found: Any = prela_stream
    for part in path.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    if not argument:
        return True
    signature = inspect.signature(found)
    given = argument.removesuffix(")")
    takes_more = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    more = {"kwargs", *AncestorOptions.__annotations__} if takes_more else set()
    return given in signature.parameters or given in more


@pytest.mark.parametrize(("name", "verdict", "remark"), ROWS, ids=[name for name, _, _ in ROWS])
def test_what_the_table_states_is_true(name: str, verdict: str, remark: str) -> None:
    assert is_there(name) == (verdict != "left out")
    assert remark or verdict == "same", "better: how; left out: why"


def test_the_table_is_read_whole() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| `")]
    assert len(lines) == len(ROWS) > 140


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr("prela_stream.errors._warned", set())
    caplog.set_level(logging.INFO, logger="prela_stream")
    return caplog


def test_what_has_no_effect_is_logged_once_and_secrets_never(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRELA_API_KEY", "s3cret")
    monkeypatch.setenv("PRELA_EXPORTER", "http")
    for _ in range(2):
        prela_stream.init(
            "x",
            directory=tmp_path,
            exporter="console",
            verbosity="verbose",
            color=True,
            api_key="s3cret",
            auto_instrument=False,
        )
        prela_stream.shutdown()
    lines = [record.getMessage() for record in log.records if "has no effect" in record.getMessage()]
    assert len(lines) == 6
    assert [line.split(" has ")[0].removeprefix("prela_stream: ") for line in lines] == [
        "init(verbosity=…)",
        "init(color=…)",
        "init(api_key=…)",
        "init(exporter='…')",
        "PRELA_API_KEY",
        "PRELA_EXPORTER",
    ]
    assert "s3cret" not in log.text
    assert "names no setting" not in log.text


def test_a_misspelt_argument_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no argument servicename; did you mean service_name"):
        prela_stream.init(servicename="x", directory=tmp_path)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="export"):
        prela_stream.init(exporter=5, directory=tmp_path)  # type: ignore[arg-type]


def test_variables_that_init_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("prela_stream")
    monkeypatch.setattr(logger, "level", logger.level)  # put back afterwards
    monkeypatch.setenv("PRELA_DEBUG", "true")
    monkeypatch.setenv("PRELA_AUTO_INSTRUMENT", "false")
    monkeypatch.setenv("PRELA_PROJECT_ID", "p1")
    monkeypatch.setenv("PRELA_SAMPLE_RATE", "0.25")
    tracer = prela_stream.init("x", directory=tmp_path)
    try:
        active = importlib.import_module("prela_stream.app.init")._process.active
        assert active.setup.instrument is False
        assert active.setup.resource_attributes == {"prela.project.id": "p1"}
        assert isinstance(tracer.sampler, prela_stream.ProbabilitySampler)
        assert tracer.sampler.rate == 0.25
        assert logger.level == logging.DEBUG
    finally:
        prela_stream.shutdown()
