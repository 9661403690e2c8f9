"""What a long-running service needs to know about its files."""

import os
from pathlib import Path


def inode_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None if there is none. A service compares it to notice a replaced file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - called for each transaction
    except OSError:
        return None
    return status.st_dev, status.st_ino
