"""Scrapes the metrics endpoints of worker processes while they run, so that what a killed one has counted survives it."""

import anyio
import anyio.abc
import anyio.to_thread

from tests.support.metrics import Scrape, fetch, free_address
from tests.support.processes import DEADLINE, Service

_ANSWER_S = 5.0
_NOTHING = Scrape({})


class Scraper:
    """The last scrape of each process that it watches.

    Args:
        tasks: Where the scraping runs. It ends with the processes.
        interval_s: Seconds between two scrapes. What a process counts after its last scrape and before a SIGKILL is not seen.
    """

    def __init__(self, tasks: anyio.abc.TaskGroup, interval_s: float = 0.2) -> None:
        self._tasks = tasks
        self._interval_s = interval_s
        self._scrapes: dict[Service, Scrape] = {}
        self._addresses: dict[Service, str] = {}

    def start(self, *command: str, **options: object) -> Service:
        """Start a `Service` with a metrics endpoint, and watch it."""
        address = free_address()
        service = Service(*command, "--http", address, **options)  # type: ignore[arg-type] # those of Service
        self._addresses[service] = address
        self._tasks.start_soon(self._watch, service)
        return service

    async def _watch(self, service: Service) -> None:
        while service.process.poll() is None:
            await self.scrape(service)
            await anyio.sleep(self._interval_s)

    async def scrape(self, service: Service) -> None:
        """Read the metrics now, if the process answers."""
        arguments = (self._addresses[service], "/metrics", "", _ANSWER_S)
        try:
            _, text = await anyio.to_thread.run_sync(fetch, *arguments, abandon_on_cancel=True)
        except OSError:
            return  # it starts, has ended, or has received SIGSTOP
        self._scrapes[service] = Scrape.of(text)

    def metrics(self, service: Service) -> Scrape:
        """The last scrape of a process."""
        return self._scrapes.get(service, _NOTHING)

    async def ready(self, *workers: Service) -> None:
        """Wait until each of these workers has an assignment, and every partition of it is restored."""
        for worker in workers:
            with anyio.fail_after(DEADLINE):
                while not (
                    (now := self.metrics(worker)).value("prela_worker_rebalances_total")
                    and not now.value("prela_worker_partitions", state="restoring")
                ):
                    assert worker.process.poll() is None, f"it ended: {worker.output()}"
                    await anyio.sleep(0.02)

    def total(self, name: str, **labels: str) -> int:
        """The sum of a metric over all processes so far."""
        return int(sum(scrape.value(name, **labels) for scrape in self._scrapes.values()))
