"""`prela-stream web` and `dev` as processes: the page is served, follows its store, and stops cleanly."""

import re
import shutil
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.support.processes import DEADLINE, STOP_S, Service
from tests.support.running_pipeline import Agent, environment

pytestmark = pytest.mark.slow


async def url_of(service: Service) -> str:
    await service.wait_for_output("ready: ")
    found = re.search(r"(?:open|page) (http://[^\s;]+)", service.output())
    assert found is not None
    return found[1]


async def until_listed(url: str, trace_id: str) -> str:
    """The trace list, once it has this trace."""
    text = ""
    with anyio.fail_after(DEADLINE):
        async with httpx2.AsyncClient(timeout=DEADLINE) as client:
            while trace_id not in text:
                await anyio.sleep(0.05)
                text = (await client.get(url)).text
    return text


async def test_dev_serves_the_page_and_web_follows_a_deleted_folder(tmp_path: Path) -> None:
    folder = tmp_path / ".prela"
    env = environment(tmp_path, folder) | {"PRELA_SINK": "[{}]", "PRELA_WEB_LISTEN": "127.0.0.1:0"}
    web = Service("web", log=tmp_path / "web.log", env=env)
    dev = Service("dev", log=tmp_path / "dev.log", env=env)
    agent = Agent(tmp_path, env)
    try:
        first = await agent.trace()
        assert "kept trace" in await until_listed(await url_of(dev), first)
        await until_listed(await url_of(web), first)
        agent.close()
        assert await dev.stop(STOP_S) == 0, dev.output()

        shutil.rmtree(folder)
        dev = Service("dev", log=tmp_path / "dev2.log", env=env)
        agent = Agent(tmp_path, env)
        second = await agent.trace()
        text = await until_listed(await url_of(web), second)
        assert first not in text
        assert await web.stop(STOP_S) == 0, web.output()
        assert await dev.stop(STOP_S) == 0, dev.output()
    finally:
        agent.close()
        dev.kill()
        web.kill()
    lines = [line for line in web.output().splitlines() if "web: " in line and "answers" not in line]
    assert len(lines) <= 2, web.output()  # before the first store, and after the deletion
