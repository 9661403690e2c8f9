"""An aiokafka that this release cannot use is named, with what to install."""

import subprocess
import sys
from pathlib import Path

import aiokafka
import pytest

BROKEN = "import aiokafka.protocol.types as types; del types.CompactArray\n"
"""As 0.15 removed a name that an earlier release imported."""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BROKEN + program],
        cwd=folder,
        env={"PRELA_KAFKA_BOOTSTRAP": "127.0.0.1:9", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", [["doctor"], ["worker"], ["sink"], ["topics", "check"]])
def test_a_command_names_the_version(command: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys; sys.argv = ['prela-stream', *{command}]\nfrom prela_stream.__main__ import main\nsys.exit(main())"
    )
    done = run(program, tmp_path)
    printed = " ".join((done.stdout + done.stderr).split())
    assert done.returncode in (1, 2), printed
    assert f"aiokafka {aiokafka.__version__} is installed" in printed
    assert "pip install 'aiokafka>=" in printed
    assert "Traceback" not in printed


def test_an_agent_goes_on_and_its_log_names_the_version(tmp_path: Path) -> None:
    program = """
import prela_stream as prela
import logging
logging.basicConfig()
prela.init(service_name="agent")
with prela.get_tracer().span("work"):
    print("worked")
prela.shutdown()
"""
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "worked\n"
    assert f"aiokafka {aiokafka.__version__} is installed" in done.stderr
