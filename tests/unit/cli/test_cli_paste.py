"""A command that is printed for pasting starts this command line, also if it is not on the PATH."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prela_stream.cli.consoles import own_command

SCRIPT = Path(sys.executable).with_name("prela-stream")


@pytest.mark.skipif(not SCRIPT.exists(), reason="the command is not installed beside this interpreter")
@pytest.mark.parametrize("on_path", [True, False])
def test_what_is_printed_works_when_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_path: bool) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([*([str(SCRIPT.parent)] if on_path else []), "/usr/bin", "/bin"]))
    for started in (str(SCRIPT), os.path.relpath(SCRIPT), "/somewhere/prela_stream/__main__.py"):
        monkeypatch.setattr(sys, "argv", [started])
        words = own_command()
        assert (words == "prela-stream") is on_path
        done = subprocess.run(f"{words} --version", shell=True, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("prela-stream ")
