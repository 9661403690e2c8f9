"""`doctor` reports whether OTLP can be received here, and whether a process receives it."""

from pathlib import Path

import pytest

from prela_stream.app.doctor import diagnose
from prela_stream.app.otlp_doctor import otlp_finding
from prela_stream.config import load_settings
from prela_stream.otlp.options import OtlpOptions
from tests.support.metrics import free_address
from tests.support.otlp import receiving


async def test_an_address_with_and_without_a_receiver(tmp_path: Path) -> None:
    async with receiving(tmp_path) as running:
        found = await otlp_finding(running.settings.otlp)
        assert found.state == "ok"
        assert found.text == f"HTTP: a process accepts connections on {running.address}"
    options = OtlpOptions(listen=free_address(), grpc_listen=free_address())
    found = await otlp_finding(options)
    assert found.state == "ok"
    assert found.text.count("no process listens on") == 2


async def test_an_address_that_needs_a_token_is_a_mistake() -> None:
    found = await otlp_finding(OtlpOptions(listen="0.0.0.0:4318"))
    assert found.state == "wrong"
    assert "no token is set" in found.text


async def test_without_the_extra_and_turned_off_it_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (await otlp_finding(OtlpOptions(listen="off", grpc_listen="off"))).state == "skipped"
    monkeypatch.setattr("prela_stream.app.otlp_doctor.missing_modules", lambda: ["uvicorn"])
    found = await otlp_finding(OtlpOptions())
    assert found.state == "skipped"
    assert "pip install" in found.text
    settings = load_settings(env={}, overrides={"directory": str(tmp_path)})
    checks = [one.check async for one in diagnose(settings)]
    assert checks.count("otlp") == 1
