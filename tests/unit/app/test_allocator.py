"""Freed memory stays in the process, so that it is not faulted in again. In a child: the settings are those of a process."""

import os
import subprocess
import sys

import pytest

ROUNDS = 50
PAGES_A_ROUND = 3 * (2 << 20) // 4096
PROGRAM = f"""
import resource
from prela_stream.app.allocator import keep_freed_memory
print(keep_freed_memory())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    batch = [b"x" * (2 << 20) for _ in range(3)]
    del batch
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="only glibc is tuned"
)


def run(**variables: str) -> tuple[str, int]:
    tuned = ("GLIBC_TUNABLES", "MALLOC_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | variables, capture_output=True, text=True, check=True
    )
    answer, faults = done.stdout.split()
    return answer, int(faults)


def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    answer, faults = run()
    assert answer == "True"
    assert faults < 5 * PAGES_A_ROUND  # the first round touches new pages


def test_a_variable_that_tunes_malloc_wins() -> None:
    answer, faults = run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert answer == "False"
    assert faults > 10 * PAGES_A_ROUND
