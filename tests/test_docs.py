"""Every code block of the README and the docs is run: programs as programs, settings as settings, commands as commands."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from prela_stream.config import load_settings
from prela_stream.sampling.policyset import load_policies

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = {"text", "hex", "json", "yaml"}
"""Blocks that show something; those of docs/wire.md are held against the encoder in tests of their own."""
ELSEWHERE = {"js", "go", "java"}
"""Blocks that `make test-languages` runs (tests/integration/test_counting_processors.py)."""
SERVICES = {"dev", "worker", "sink", "web", "otlp"}
PIP = re.compile(r"(?:^|.* )pip install 'prela-stream\[([a-z,]+)\]'$")


class Block(msgspec.Struct, frozen=True):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


def blocks(*languages: str) -> Iterator[Block]:
    """Blocks of these languages."""
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(content):
            if found[1] in languages:
                yield Block(page, content.count("\n", 0, found.start()) + 1, found[1], found[2])


def named(block: Block) -> str:
    """For pytest's output."""
    return f"{block.page.name}:{block.line}"


def test_every_block_has_a_language_that_is_run_or_shown() -> None:
    known = {"python", "toml", "sh", "sql"} | OUTPUT | ELSEWHERE  # sql: tests/unit/sinks/test_parquet.py
    strange = [
        f"{page.name}: {found[1]!r}"
        for page in PAGES
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if found[1] not in known
    ]
    assert strange == []
    assert len(list(blocks("python"))) >= 3


@pytest.mark.parametrize("block", list(blocks("python")), ids=named)
def test_programs_run(block: Block, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.text, encoding="utf-8")
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("block", list(blocks("toml")), ids=named)
def test_files_load(block: Block, tmp_path: Path) -> None:
    if "policy" in tomllib.loads(block.text):
        assert load_policies(block.text, source=named(block)).policies
    else:
        file = tmp_path / "prela.toml"
        file.write_text(block.text, encoding="utf-8")
        assert load_settings(file, {}) != load_settings(None, {})


@pytest.mark.timeout(600)  # a block may be the whole demo, on a broker that has to be started for it
@pytest.mark.parametrize("block", list(blocks("sh")), ids=named)
def test_commands_are_right(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Commands run on a store that the README's own program filled; services are only asked for their help.

    Where a block names brokers, the test's own stand in for them, with topics of its own.
    """
    lines = [line.partition("  #")[0].strip() for line in block.text.splitlines() if line.strip()]
    environment: dict[str, str] = {}
    for line in lines:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            environment[name] = value
            if name == "PRELA_KAFKA_BOOTSTRAP":
                environment[name] = request.getfixturevalue("kafka")
                environment["PRELA_TOPICS_PREFIX"] = request.getfixturevalue("kafka_prefix")
            continue
        if line == "python agent.py":
            (tmp_path / "agent.py").write_text(readme_program(), encoding="utf-8")
            subprocess.run([sys.executable, "agent.py"], cwd=tmp_path, check=True)
            continue
        if installs := PIP.match(line):
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            assert set(installs[1].split(",")) <= set(project["optional-dependencies"])
            continue
        arguments = shlex.split(line)
        assert arguments[0] == "prela-stream", line
        if arguments[1] in SERVICES:
            arguments = [arguments[1], "--help"]
        else:
            fill(tmp_path)
            arguments = arguments[1:]
        done = command(arguments, tmp_path, environment)
        assert done.returncode == 0, f"{line}: {done.stderr or done.stdout}"
        if arguments[0] == "traces":
            assert "answer" in done.stdout, f"{line} finds nothing of the README's own program"


def command(arguments: list[str], cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `prela-stream`."""
    return subprocess.run(
        [sys.executable, "-m", "prela_stream", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def readme_program() -> str:
    """The first program of the README."""
    return next(block for block in blocks("python") if block.page.name == "README.md").text


def fill(folder: Path) -> None:
    """A store in `.prela/` with what the README's own program made and the policies kept that run where none are named."""
    if (folder / ".prela" / "traces.db").exists():
        return
    program = """
import anyio, prela_stream as prela
from prela_stream.app import open_reader, run_dev
from prela_stream.config import load_settings

async def main():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_dev, load_settings())
        with anyio.fail_after(60):
            while True:
                try:
                    async with open_reader(load_settings()) as reader:
                        if (await reader.totals())["traces"]:
                            break
                except prela.PrelaError:
                    pass
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()

anyio.run(main)
"""
    for text in (readme_program(), program):
        patient = {"PRELA_PIPELINE_SHUTDOWN_TIMEOUT_S": "60"}  # an exit on a slow disk would leave spans behind
        subprocess.run([sys.executable, "-c", text], cwd=folder, env={**os.environ, **patient}, check=True)


def test_readme_commands_of_make_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named_targets = set(
        re.findall(r"^ {4}make (\w+)", "\n".join(p.read_text(encoding="utf-8") for p in PAGES), re.MULTILINE)
    )
    assert named_targets
    assert named_targets <= targets


def test_links_between_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
    links = [(page, to) for page in [*PAGES, ROOT / "CONTRIBUTING.md"] for to in link.findall(page.read_text("utf-8"))]
    assert [f"{page.name}: {to}" for page, to in links if "://" not in to and not (page.parent / to).exists()] == []
    assert len(links) > 20
