"""What a long-running service needs to know about its files."""

import os
import threading
import time
from pathlib import Path
from typing import Final

_ONE_INCIDENT_S: Final = 30.0
_lock: Final = threading.Lock()
_incidents: Final[dict[Path, tuple[float, set[Path]]]] = {}
"""By folder: when the first of its files was found to be replaced, and which files were found since."""


def inode_of(path: Path, least_bytes: int = 0) -> tuple[int, int] | None:
    """Device and inode of the file at a path. A service compares it to notice a replaced file.

    None if there is no file, or if it has less than `least_bytes`: it was truncated.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - called for each transaction
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size >= least_bytes else None


def is_first_of_its_folder(path: Path) -> bool:
    """Whether to report that this file was deleted or replaced: `rm -rf .prela` is one incident with one line in the log.

    False if another file of the same folder was reported in the last 30 s. A file that is found for the second time is a new
    incident.

    Args:
        path: The absolute path of the file.
    """
    now = time.monotonic()
    with _lock:
        for folder in path.parents:
            began, files = _incidents.get(folder, (-_ONE_INCIDENT_S, {path}))
            if now - began < _ONE_INCIDENT_S and path not in files:
                files.add(path)
                return False
        _incidents[path.parent] = (now, {path})
    return True
