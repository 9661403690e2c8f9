"""A small disk that a test can fill: a tmpfs, which takes the right to mount."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK = 1 << 16


class SmallDisk:
    """A mounted disk of a few MB."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def full(self) -> Iterator[None]:
        """No byte can be written to the disk for the length of the block."""
        filler = self.path / "filler"
        file = os.open(filler, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            for size in (_BLOCK, 1):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(file, b"x" * size)
            assert shutil.disk_usage(self.path).free == 0
            yield
        finally:
            os.close(file)
            filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """A disk of 8 MB, or of as many as `request.param`; the test is skipped if this user may not mount one."""
    size = getattr(request, "param", 8)
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a full disk. It needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
