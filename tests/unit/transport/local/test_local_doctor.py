"""The checks of the local log's file for `prela-stream doctor`."""

from pathlib import Path

import pytest

from prela_stream.transport.local.doctor import check_file


def test_a_file_in_a_folder_that_this_user_may_not_search_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    found = check_file(tmp_path / "log.db", "log file", "local.path")
    assert (found.state, found.check) == ("wrong", "log file")
    assert str(tmp_path) in found.text
    assert "local.path" in found.text
