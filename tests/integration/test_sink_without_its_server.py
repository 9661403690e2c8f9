"""A sink process whose server is down: one line in its log, however often it tries, and no key of its address."""

from pathlib import Path

import anyio
import pytest

import prela_stream as prela
from prela_stream.app import run_worker
from prela_stream.config import load_settings
from tests.support.metrics import free_address
from tests.support.processes import DEADLINE, STOP_S
from tests.support.scraper import Scraper

ATTEMPTS = 4
SETTINGS = """
directory = "{folder}"
policies_file = "{folder}/policies.toml"
[worker]
commit_interval_ms = 50
tick_min_ms = 20
[[sink]]
type = "{kind}"
{key} = "{url}"
"""


@pytest.mark.parametrize(
    ("kind", "key", "url"),
    [("clickhouse", "url", "http://me:s3cret@{}/"), ("otlp", "endpoint", "http://{}/v1/traces?api_key=s3cret")],
)
async def test_one_line_for_all_attempts(tmp_path: Path, kind: str, key: str, url: str) -> None:
    config = tmp_path / "prela.toml"
    address = url.format(free_address())
    config.write_text(SETTINGS.format(folder=tmp_path, kind=kind, key=key, url=address), encoding="utf-8")
    (tmp_path / "policies.toml").write_text('[[policy]]\nname = "all"\ntype = "always"\n', encoding="utf-8")
    settings = load_settings(config, {})
    async with prela.pipeline(settings):
        with prela.get_tracer().span("root"):
            pass
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_worker, settings)
        scraper = Scraper(tasks)
        sink = scraper.start("sink", "--config", str(config), log=tmp_path / "sink.log")
        try:
            with anyio.fail_after(DEADLINE):
                while scraper.metrics(sink).value("prela_sink_retries_total") < ATTEMPTS:
                    assert sink.process.poll() is None, sink.output()
                    await anyio.sleep(0.05)
            assert await sink.stop(within=STOP_S) == 0
        finally:
            sink.kill()
            tasks.cancel_scope.cancel()
    warnings = [line for line in sink.output().splitlines() if "WARNING" in line]
    assert len(warnings) == 1, sink.output()
    assert f"sink {kind} cannot continue and tries again" in warnings[0]
    assert "s3cret" not in sink.output()
    assert "Traceback" not in sink.output()
