"""The types that users see: complete for pyright, right on example programs, and wrong calls are refused by both checkers."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import prela_stream

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOOD, BAD = HERE / "good_api.py", HERE / "bad_api.py"
WRONG = {number for number, line in enumerate(BAD.read_text("utf-8").splitlines(), 1) if line.endswith("  # wrong")}
SETTINGS = {"include": ["*.py"], "typeCheckingMode": "strict", "reportUnusedExpression": False}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def mypy(file: Path) -> str:
    """The output of mypy for a file, with the project's settings."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", os.devnull, str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def pyright(folder: Path, *arguments: str) -> dict[str, Any]:
    """The output of pyright, which finds the package like an installed one."""
    paths = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def errors_in(file: Path, folder: Path) -> dict[int, str]:
    """Line and text of each error that pyright finds in a file."""
    (folder / file.name).write_text(file.read_text("utf-8"), "utf-8")
    (folder / "pyrightconfig.json").write_text(json.dumps(SETTINGS), "utf-8")
    found = pyright(folder)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1: one["message"] for one in found if one["severity"] == "error"}


def test_mypy_accepts_what_is_right() -> None:
    assert mypy(GOOD).strip() == ""


def test_mypy_refuses_what_is_wrong_and_nothing_else() -> None:
    found = {int(line) for line in re.findall(r"bad_api\.py:(\d+): error", mypy(BAD))}
    assert found == WRONG


def test_pyright_accepts_what_is_right(tmp_path: Path) -> None:
    assert errors_in(GOOD, tmp_path) == {}


def test_pyright_refuses_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    assert set(errors_in(BAD, tmp_path)) == WRONG


def test_every_public_name_has_a_complete_type(tmp_path: Path) -> None:
    report = pyright(tmp_path, "--verifytypes", "prela_stream", "--ignoreexternal")["typeCompleteness"]
    assert report["pyTypedPath"]
    homes = public_homes()
    symbols = [one for one in report["symbols"] if one["name"].startswith(homes)]
    public = {f"prela_stream.{name}" for name in prela_stream.__all__ if not name.startswith("_")}
    assert public <= {one["name"] for one in symbols}
    unclear = [
        (one["name"], [why["message"] for why in one["diagnostics"]])
        for one in symbols
        if not one["isTypeKnown"] or one["isTypeAmbiguous"]
    ]
    assert unclear == []


def public_homes() -> tuple[str, ...]:
    """Beginnings of the names of what users see: public names, members of public classes, the helpers for tests."""
    classes = [value for name in prela_stream.__all__ if isinstance(value := getattr(prela_stream, name), type)]
    public = (f"prela_stream.{name}" for name in prela_stream.__all__)
    return (*public, *(f"{one.__module__}.{one.__qualname__}." for one in classes), "prela_stream.testing.")
