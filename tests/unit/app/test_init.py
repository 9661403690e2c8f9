"""`init()` and `pipeline()`: the global functions use the pipeline that runs, and arguments without effect are reported."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

import prela_stream as prela
from prela_stream.errors import ConfigurationError
from prela_stream.worker.options import WorkerOptions
from tests.support.processes import DEADLINE


@pytest.fixture(autouse=True)
def off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files go to the folder of the test; tracing is off afterwards."""
    monkeypatch.chdir(tmp_path)
    yield
    prela.shutdown(DEADLINE)


async def test_the_global_functions_use_the_pipeline_of_the_block() -> None:
    async with prela.pipeline() as running:
        with prela.get_tracer().span("a"):
            pass
        assert (await prela.aflush(DEADLINE)).complete
        ledger = prela.ledger()
        assert ledger == running.ledger()
        assert ledger.acknowledged >= 1
        assert prela.flush().complete
    assert prela.ledger() is None
    assert (await prela.aflush()).acknowledged == 0


async def test_init_in_a_block_is_what_the_global_functions_use_from_then_on() -> None:
    async with prela.pipeline() as running:
        prela.init("later")
        with prela.get_tracer().span("a"):
            pass
        assert prela.ledger() != running.ledger()
    assert (await prela.aflush(DEADLINE)).complete
    ledger = prela.ledger()
    assert ledger is not None, "the end of the block left init() on"
    assert ledger.acknowledged >= 1


async def test_after_a_block_in_a_block_the_pipeline_of_the_outer_one_is_used_again() -> None:
    async with prela.pipeline() as outer:
        with prela.get_tracer().span("around"):
            async with prela.pipeline() as inner:
                with prela.get_tracer().span("inside"):
                    pass
                assert prela.ledger() == inner.ledger() != outer.ledger()
        assert (await prela.aflush(DEADLINE)).complete
        assert prela.ledger() == outer.ledger()
        assert outer.ledger().acknowledged == 1
        assert inner.ledger().acknowledged >= 1
    assert prela.ledger() is None


async def test_blocks_that_end_in_the_order_in_which_they_began() -> None:
    may_end, ended = anyio.Event(), anyio.Event()

    async def first(*, task_status: TaskStatus[None]) -> None:
        async with prela.pipeline():
            task_status.started()
            await may_end.wait()
        ended.set()

    async with anyio.create_task_group() as tasks:
        await tasks.start(first)
        async with prela.pipeline() as later:
            may_end.set()
            await ended.wait()
            async with prela.pipeline() as last:
                assert prela.ledger() == last.ledger()
            with prela.get_tracer().span("a"):
                pass
            assert (await prela.aflush(DEADLINE)).complete
            assert prela.ledger() == later.ledger()
            assert later.ledger().acknowledged >= 1
    assert prela.ledger() is None


def test_the_global_functions_before_and_after_init(tmp_path: Path) -> None:
    assert (prela.ledger(), prela.flush().acknowledged) == (None, 0)
    prela.init("x", directory=tmp_path)
    with prela.get_tracer().span("a"):
        pass
    assert prela.flush(DEADLINE).complete
    ledger = prela.ledger()
    assert ledger is not None
    assert ledger.acknowledged >= 1
    prela.shutdown()
    assert (prela.ledger(), prela.flush().acknowledged) == (None, 0)


@pytest.mark.parametrize(
    ("arguments", "environment", "warning"),
    [
        ({"sampler": prela.AlwaysOnSampler(), "sample_rate": 0.5}, {}, "init(sample_rate=…) has no effect: sampler=…"),
        (
            {"directory": "here"},
            {"PRELA_TRANSPORT": "kafka"},
            "init(directory=…) has no effect: the transport is kafka",
        ),
        (
            {"directory": "here"},
            {"PRELA_LOCAL_PATH": "there/log.db"},
            "init(directory=…) has no effect: the setting local.path",
        ),
        (
            {"auto_instrument": ["anthropic"]},
            {"PRELA_AUTO_INSTRUMENT": "0"},
            "init(auto_instrument=…) has no effect: the variable",
        ),
        ({"exporter": "console"}, {}, "init(exporter='…') has no effect"),
        ({"verbosity": "verbose"}, {}, "init(verbosity=…) has no effect"),
        ({"directory": "here", "sample_rate": 0.5}, {}, None),
        ({"sampler": prela.AlwaysOnSampler()}, {}, None),
        ({}, {"PRELA_TRANSPORT": "kafka"}, None),
    ],
)
def test_an_argument_without_effect_is_a_warning(
    arguments: dict[str, object],
    environment: dict[str, str],
    warning: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("prela_stream.errors._warned", set())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, logger="prela_stream"):
        prela.init("x", **{"auto_instrument": False, **arguments})  # type: ignore[arg-type]
    found = [message for message in caplog.messages if "has no effect" in message]
    assert len(found) == (0 if warning is None else 1)
    assert warning is None or found[0].startswith(f"prela_stream: {warning}")


def test_debug_shows_the_log_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("prela_stream")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    prela.init("x", directory=tmp_path / "off")
    logger.debug("a detail")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("PRELA_DEBUG", "1")
    for name in ("one", "two"):
        prela.init("x", directory=tmp_path / name)
    logging.getLogger("prela_stream.worker").debug("a detail")
    assert capsys.readouterr().err.count("DEBUG prela_stream.worker: a detail\n") == 1
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    logger.warning("a warning")
    assert capsys.readouterr().err.count("a warning") == 1, "the application shows it already"


async def test_settings_of_a_block_are_checked() -> None:
    bad = prela.Settings(worker=WorkerOptions(tick_min_ms=-1))
    with pytest.raises(ConfigurationError, match=r"worker\.tick_min_ms: expected a whole number of ms from 1"):
        async with prela.pipeline(bad):
            pass


def test_an_argument_of_the_ancestors_tracer_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prela_stream.errors._warned", set())
    with caplog.at_level(logging.WARNING, logger="prela_stream"):
        for _ in range(2):
            prela.Tracer(capture_for_replay=True)
        prela.Tracer()
    assert [message.partition(":")[2].partition(":")[0] for message in caplog.messages] == [
        " Tracer(capture_for_replay=True) has no effect"
    ]


@pytest.mark.parametrize("name", ["resource_attributes", "directory", "config"])
def test_an_argument_of_the_wrong_type_is_a_configuration_error(name: str) -> None:
    arguments: dict[str, Any] = {name: 5}
    with pytest.raises(prela.ConfigurationError, match=rf"init\({name}=…\) expects a .*, got 5"):
        prela.init("x", auto_instrument=False, **arguments)


def test_without_settings_it_reports_once_where_spans_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prela_stream.errors._warned", set())
    prela.init("first")
    prela.init("second")
    prela.init("third", directory=tmp_path / "named")
    (line,) = [record.getMessage() for record in caplog.records if "no setting is given" in record.getMessage()]
    assert f"spans go to {tmp_path / '.prela' / 'log.db'}; `prela-stream dev` in this folder" in line
