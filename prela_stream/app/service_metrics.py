"""The services of the pipeline page: what each reports at its metrics address (`http.listen`), and what this process does.

The committed state of the transport shows how far workers and sinks are. Only a service itself knows whether it is ready, what it
holds in memory, and how often it was restored. `web.services` names the addresses; nothing else is asked.
"""

from __future__ import annotations

import http.client
import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import msgspec

from prela_stream import telemetry
from prela_stream.addresses import parse_address
from prela_stream.web.api import Panel

if TYPE_CHECKING:
    from prela_stream.config import Settings

_ANSWER_S: Final = 2.0
_MOST_BYTES: Final = 4 << 20
_KINDS: Final[Mapping[str, str]] = {
    "worker": "prela_worker_partitions",
    "sink": "prela_sink_records_total",
    "otlp": "prela_otlp_requests_total",
}
"""A metric that only a service with this part exposes."""
_COLUMNS: Final = (
    "Service",
    "Parts",
    "State",
    "Partitions",
    "Open traces",
    "Lag",
    "Decisions",
    "Written",
    "Restores",
    "Memory",
)

Values = Mapping[str, float]
"""The sum of each metric over its labels."""


class _Answer(msgspec.Struct, frozen=True):
    state: str
    values: Values


async def service_panel(settings: Settings) -> Panel | None:
    """A row for each service of `web.services`, and one for this process if a worker or a sink runs in it; None without them."""
    addresses = settings.web.services
    answers: dict[str, _Answer] = {}

    async def ask(address: str) -> None:
        answers[address] = await anyio.to_thread.run_sync(_asked, address, settings.http.token, abandon_on_cancel=True)

    note = ""
    if addresses and importlib.util.find_spec("prometheus_client") is None:
        note = "web.services needs prometheus_client, not installed here: pip install 'prela-stream[metrics]'"
    else:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                tasks.start_soon(ask, address)
    own = _own()
    rows = [] if own is None else [_row("this process", own)]
    rows += [_row(address, answers[address]) for address in addresses if address in answers]
    if not rows and not note:
        return None
    return Panel(title="Services", columns=_COLUMNS, rows=rows, note=note)


def _own() -> _Answer | None:
    """The metrics of this process; None if neither a worker nor a sink has run here."""
    readings = telemetry.snapshot("worker", "sink", "otlp")
    values = {one.name: sum(sample.value for sample in one.samples) for one in readings if one.samples}
    has_part = values.get("prela_worker_partitions", 0) or values.get("prela_sink_records_total", 0)
    return _Answer("running", values) if has_part else None


def _asked(address: str, token: str) -> _Answer:
    """What the service at this address reports. Raises nothing."""
    try:
        status, text = _get(address, "/readyz", token)
        state = "ready" if status == 200 else "not ready"
        reasons = text.splitlines()[1:]
        if reasons:
            state = f"{state}: {'; '.join(reasons)}"
        status, text = _get(address, "/metrics", token)
        if status != 200:
            return _Answer(f"{state}; its metrics: HTTP {status} ({text.strip()[:200]})", {})
        return _Answer(state, _read(text))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _Answer(f"does not answer: {str(error) or type(error).__name__}", {})


def _get(address: str, path: str, token: str) -> tuple[int, str]:
    host, port = parse_address(address) or (address, 0)
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES).decode(errors="replace")
    finally:
        connection.close()


def _read(text: str) -> Values:
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name if family.type != "counter" else f"{family.name}_total", 0.0)
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _row(name: str, answer: _Answer) -> list[str]:
    values = answer.values
    parts = [part for part, metric in _KINDS.items() if metric in values]

    def written(write: Callable[[float], str], *names: str) -> str:
        known = [values[one] for one in names if one in values]
        return write(sum(known)) if known else ""

    return [
        name,
        ", ".join(parts),
        answer.state,
        written(_whole, "prela_worker_partitions"),
        written(_whole, "prela_worker_open_traces"),
        written(_whole, "prela_worker_lag_records", "prela_sink_lag_records"),
        written(_whole, "prela_worker_decisions_total"),
        written(_whole, "prela_sink_records_total"),
        written(_whole, "prela_worker_restores_total"),
        written(_mebibytes, "process_resident_memory_bytes"),
    ]


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _mebibytes(value: float) -> str:
    return f"{value / (1 << 20):,.0f} MiB"
