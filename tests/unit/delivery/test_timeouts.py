"""Whatever an application gives as a timeout: the functions return, and nothing is raised."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest

import prela_stream as prela
from prela_stream.delivery.timeouts import LONGEST, seconds

ODD: list[Any] = [math.nan, -1, 0, 1e300, math.inf, -math.inf, "x", None, True, 10**400, object()]


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, 5.0), (0, 0.0), (2, 2.0), (0.5, 0.5), (-1, 0.0), (math.inf, LONGEST), (-math.inf, 0.0), (10**400, LONGEST),
        (math.nan, 5.0), ("x", 5.0), (True, 5.0), ([], 5.0),
    ],
)  # fmt: skip
def test_the_seconds_that_are_used(given: Any, used: float) -> None:
    assert seconds(given, 5.0) == used


def test_a_wrong_timeout_is_reported_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("prela_stream.errors._warned", set())
    with caplog.at_level(logging.WARNING, logger="prela_stream"):
        for _ in range(2):
            seconds("soon", 5.0)
    assert caplog.messages == ["prela_stream: a timeout is a number of seconds, got 'soon'; 5 s are used"]


@pytest.mark.parametrize("timeout", ODD, ids=lambda value: type(value).__name__)
async def test_nothing_is_raised_into_the_application(
    timeout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prela.init("x", directory=tmp_path, auto_instrument=False)
    with prela.get_tracer().span("a"):
        pass
    await prela.aflush(timeout)
    prela.flush(timeout)
    ledger = prela.shutdown(timeout)
    assert ledger is not None
    assert ledger.queued == ledger.in_flight == 0
    async with prela.pipeline(prela.load_settings(overrides={"directory": str(tmp_path)})) as running:
        await running.aflush(timeout)
        await running.aclose(timeout)
