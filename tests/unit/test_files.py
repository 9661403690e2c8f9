"""One incident in a folder is reported once."""

import time
from pathlib import Path

import pytest

from prela_stream import files
from prela_stream.files import inode_of, is_first_of_its_folder


@pytest.fixture(autouse=True)
def _no_incidents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_incidents", {})


def test_the_first_file_of_a_folder_is_reported_and_a_file_that_is_found_again(tmp_path: Path) -> None:
    log, store, lines = tmp_path / "log.db", tmp_path / "traces.db", tmp_path / "jsonl" / "traces"
    assert [is_first_of_its_folder(path) for path in (log, store, lines)] == [True, False, False]
    assert [is_first_of_its_folder(path) for path in (lines, store, log)] == [True, True, False]
    assert is_first_of_its_folder(tmp_path.parent / "elsewhere" / "log.db")


def test_an_incident_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert is_first_of_its_folder(tmp_path / "a")
    now = 31.0
    assert is_first_of_its_folder(tmp_path / "b")


def test_an_inode_is_that_of_the_file_at_the_path_now(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    assert inode_of(path) is None
    path.touch()
    other.touch()
    first = inode_of(path)
    (tmp_path / "link").symlink_to(path)
    assert inode_of(tmp_path / "link") == first
    other.replace(path)
    assert inode_of(path) not in (None, first)
