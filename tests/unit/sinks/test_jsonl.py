"""Files of the JSONL sink: when a new one begins, what a crash leaves, and faults of the disk."""

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prela_stream.errors import SinkError
from prela_stream.sinks.jsonl import JsonlOptions, JsonlSink
from tests.support.kept import SOURCE, batch, decision, fragment, span, trace_id, whole

HOUR_S = 3_600.0


class Clock:
    """Seconds since the epoch, as the test sets them."""

    def __init__(self) -> None:
        self.now_s = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def lines_of(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.split("\n") if line]


def traces_in(folder: Path) -> list[list[str]]:
    """Trace ids of each file."""
    return [[line["trace_id"] for line in lines_of(file)] for file in files_of(folder)]


async def write(sink: JsonlSink, *numbers: int) -> None:
    await sink.write(batch(*map(whole, numbers)))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_line_has_the_trace_its_decision_and_its_spans(tmp_path: Path) -> None:
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))
    await sink.write(batch(whole(1), fragment(decision(1), [span(1, 7)], late=True, fragment=3)))
    await sink.aclose()
    first, late = lines_of(files_of(tmp_path)[0])
    assert (first["trace_id"], first["decision_id"], first["late"]) == (trace_id(1), f"{1:032x}", False)
    assert (first["weight"], first["policy"], first["reason"]) == (2.0, "slow", "duration over 10 s")
    assert first["decision"]["summary"]["root_name"] == "plan trip"
    assert [one["name"] for one in first["spans"]] == ["plan trip", "tool 1"]
    assert first["spans"][0]["attributes"] == {"city": "Lisbon1", "nested": {"list": ["needle"]}}
    assert first["spans"][0]["events"][0]["attributes"] == {"text": "haystack"}
    assert (late["late"], [one["name"] for one in late["spans"]]) == (True, ["tool 7"])


async def test_a_large_file_is_followed_by_a_new_one(tmp_path: Path, clock: Clock) -> None:
    sink = JsonlSink(JsonlOptions(path=str(tmp_path), rotate_bytes=4_000), clock=clock)
    for number in range(1, 7):
        await write(sink, number)
    await write(sink, *range(7, 20))  # one batch is never split
    await sink.aclose()
    found = traces_in(tmp_path)
    assert len(found) > 2
    assert [one for file in found for one in file] == [trace_id(number) for number in range(1, 20)]
    assert all(file.stat().st_size <= 4_000 for file in files_of(tmp_path)[:-1])
    assert files_of(tmp_path)[-1].stat().st_size > 4_000


async def test_an_old_file_is_followed_by_a_new_one_also_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    options = JsonlOptions(path=str(tmp_path), rotate_s=HOUR_S)
    sink = JsonlSink(options, clock=clock)
    await write(sink, 1)
    clock.now_s += HOUR_S - 1
    await write(sink, 2)
    await sink.aclose()
    sink = JsonlSink(options, clock=clock)
    await write(sink, 3)
    clock.now_s += 1
    await write(sink, 4)
    await sink.aclose()
    assert traces_in(tmp_path) == [[trace_id(1), trace_id(2), trace_id(3)], [trace_id(4)]]


@pytest.mark.parametrize("torn", [b'{"trace_id": "00', b"x" * 200_000, b"\xff\xfe"])
async def test_an_incomplete_line_is_cut_off_at_the_start(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    options = JsonlOptions(path=str(tmp_path))
    sink = JsonlSink(options)
    await write(sink, 1)
    await sink.aclose()
    with files_of(tmp_path)[0].open("ab") as file:
        file.write(torn)
    sink = JsonlSink(options)
    await write(sink, 2)
    await sink.aclose()
    assert traces_in(tmp_path) == [[trace_id(1), trace_id(2)]]
    assert f"cut {len(torn)} bytes of an incomplete line off the end of {files_of(tmp_path)[0]}" in caplog.text


async def test_a_file_of_one_incomplete_line_becomes_empty(tmp_path: Path) -> None:
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))
    await write(sink, 1)
    await sink.aclose()
    files_of(tmp_path)[0].write_bytes(b'{"trace')
    await write(sink, 2)
    await sink.aclose()
    assert traces_in(tmp_path) == [[trace_id(2)]]


async def test_sinks_that_share_a_folder_write_separate_files(tmp_path: Path) -> None:
    options = JsonlOptions(path=str(tmp_path))
    first, second = JsonlSink(options), JsonlSink(options)
    await write(first, 1)
    with files_of(tmp_path)[0].open("ab") as file:
        file.write(b'{"in the middle of a write')  # the other sink must not cut this
    await write(second, 2)
    assert len(files_of(tmp_path)) == 2
    assert files_of(tmp_path)[0].read_bytes().endswith(b"middle of a write")
    await first.aclose()
    await second.aclose()
    third = JsonlSink(options)
    await write(third, 3)
    await third.aclose()
    assert traces_in(tmp_path) == [[trace_id(1)], [trace_id(2), trace_id(3)]]


async def test_it_is_flushed_to_the_disk_before_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, int]] = []
    fsync = os.fsync

    def note(file: int) -> None:
        fsync(file)
        path = Path(f"/proc/self/fd/{file}").readlink()
        flushed.append((path.name, path.stat().st_size if path.is_file() else 0))

    monkeypatch.setattr(os, "fsync", note)
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))
    await write(sink, 1)
    (file,) = files_of(tmp_path)
    assert flushed == [(tmp_path.name, 0), (file.name, file.stat().st_size)], (
        "first the name in its folder, then the lines"
    )
    await sink.aclose()


async def test_a_write_that_fails_half_way_adds_no_line(tmp_path: Path) -> None:
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))
    await write(sink, 1)
    (file,) = files_of(tmp_path)
    size = file.stat().st_size
    with largest_file(size + 1_500):  # one line and a half
        for _ in range(2):
            with pytest.raises(SinkError, match=f"cannot write to {file}: File too large"):
                await write(sink, 2, 3)
            assert file.stat().st_size == size
    await write(sink, 2, 3)
    await sink.aclose()
    assert traces_in(tmp_path) == [[trace_id(1), trace_id(2), trace_id(3)]]


async def test_a_deleted_or_replaced_file_is_followed_by_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    sink = JsonlSink(JsonlOptions(path=str(folder)))
    await write(sink, 1)
    shutil.rmtree(folder)
    await write(sink, 2)
    assert traces_in(folder) == [[trace_id(2)]]
    (file,) = files_of(folder)
    file.rename(folder / "mine.txt")
    file.write_text("")
    await write(sink, 3)
    await sink.aclose()
    assert [line["trace_id"] for line in lines_of(file)] == [trace_id(3)]
    assert [record.getMessage().endswith("the sink continues in a new file") for record in caplog.records] == [
        True,
        True,
    ]
    assert await sink.stored_offset(SOURCE) is None


async def test_a_file_that_is_deleted_during_a_write_loses_nothing_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))
    await write(sink, 1)
    (file,) = files_of(tmp_path)
    fsync = os.fsync

    def delete(number: int) -> None:
        fsync(number)
        file.unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", delete)
        with pytest.raises(SinkError, match=f"cannot write to {file}: it was deleted or replaced during the write"):
            await write(sink, 2)
    await write(sink, 2)
    await sink.aclose()
    assert traces_in(tmp_path) == [[trace_id(2)]]


async def test_a_file_that_another_program_truncates_is_continued(tmp_path: Path) -> None:
    sink = JsonlSink(JsonlOptions(path=str(tmp_path)))
    await write(sink, 1)
    (file,) = files_of(tmp_path)
    os.truncate(file, 0)  # as `copytruncate` of logrotate
    with largest_file(1_500), pytest.raises(SinkError):
        await write(sink, 2, 3)
    assert file.stat().st_size == 0
    await write(sink, 2, 3)
    await sink.aclose()
    assert traces_in(tmp_path) == [[trace_id(2), trace_id(3)]]
