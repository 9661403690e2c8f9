"""`prela-stream sink --only NAME`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from prela_stream.cli.main import app


@pytest.mark.parametrize(
    ("variable", "arguments", "message"),
    [
        ('[{}, {"type": "jsonl"}]', ["--only", "jsnl"], "no sink is named 'jsnl'; the settings name sqlite, jsonl"),
        ("[]", [], "the settings name no sink"),
        ("[]", ["--only", "sqlite"], "no sink is named 'sqlite'; the settings name none"),
    ],
)
def test_a_sink_that_does_not_exist_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("PRELA_SINK", variable)
    done = CliRunner().invoke(app, ["sink", *arguments, "--dir", str(tmp_path)])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
