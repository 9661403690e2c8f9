"""A store that only one test uses."""

from pathlib import Path

import pytest

from prela_stream.sinks.sqlite.options import SqliteOptions


@pytest.fixture
def options(tmp_path: Path) -> SqliteOptions:
    return SqliteOptions(path=str(tmp_path / "folder" / "traces.db"))
