"""One worker with 64 partitions: how soon it is ready and how many connections it holds; its memory is printed."""

import os
import sys
import time
from pathlib import Path

import anyio
import pytest

from tests.support.crowd import crowd
from tests.support.processes import DEADLINE

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
PARTITIONS = 64
READY_S = 20.0
_ESTABLISHED = "01"


async def test_a_worker_takes_sixty_four_partitions_over_in_twenty_seconds(
    kafka: str, kafka_prefix: str, tmp_path: Path, process_core: str
) -> None:
    # Commits are seldom and have time: 64 a second are more than a busy machine does, and are not what is measured.
    async with crowd(
        kafka,
        kafka_prefix,
        tmp_path,
        core=process_core,
        seed=24,
        partitions=PARTITIONS,
        commit_ms=5_000,
        commit_timeout_s=DEADLINE,
    ) as workers:
        workers.load.pace_s = 0.002  # for something on every partition soon
        first = workers.start()
        await workers.scraper.ready(first)
        for number in range(PARTITIONS):  # so that the next one has something to restore, everywhere
            with anyio.fail_after(DEADLINE):
                while await workers.position(number) == 0:
                    await anyio.sleep(0.2)
        await workers.stop(first)
        begin = time.monotonic()
        second = workers.start()
        await workers.scraper.ready(second)
        took = time.monotonic() - begin
        busy = max(os.getloadavg()[0], float(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
        crowding = max(busy / (os.cpu_count() or 1), 1.0)  # on a busy machine it has its share alone
        found = connections(second.process.pid)
        memory = resident_mib(second.process.pid)
        await workers.judge()
        signs = await workers.signs()
    sys.stdout.write(
        f"{PARTITIONS} partitions: ready in {took:.1f} s (crowding {crowding:.1f}), {found} connections, {memory:.0f} MiB\n"
        f"{signs}\n"
    )
    assert took <= READY_S * crowding
    assert signs.takeovers >= PARTITIONS
    assert found <= 2 * PARTITIONS + 8, "a writer uses two connections to a single broker"


def connections(pid: int) -> int:
    """Established TCP connections of a process."""
    own = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(file.readlink())
        except FileNotFoundError:  # closed in between
            continue
        if target.startswith("socket:["):
            own.add(target.removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    ]
    return sum(row[3] == _ESTABLISHED and row[9] in own for row in rows)


def resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    pytest.fail(f"/proc/{pid}/status has no VmRSS")
