"""docs/metrics.md: every metric with its kind, unit, labels and meaning, and how to read them."""

from typing import Final

from prela_stream import telemetry
from prela_stream.measures import Component, Histogram, Metric
from tools.docstrings import cell

INTRODUCTION: Final = """\
# Metrics and health

## In services

`worker`, `sink`, `otlp` and `dev` serve three paths if they have an address: `--http 127.0.0.1:9464`, or `[http] listen` in the
settings ([settings.md](settings.md)). Without one, no socket is opened.
`pip install 'prela-stream[metrics]'` installs what this needs.

| path | answer |
|---|---|
| `/metrics` | the metrics of the service, in the text format of Prometheus or in that of OpenMetrics |
| `/healthz` | 200 if the event loop of the service answers |
| `/readyz` | 200 if the service is ready; else 503 and the reasons |

A worker is ready if each of its partitions is restored and none is further behind than `http.ready_lag_s`. A sink is ready if it
has its partitions and can write.

If other machines can reach the address, `http.token` is required. `/metrics` then needs the header `Authorization: Bearer TOKEN`,
and `/readyz` gives its reasons only with it. A request whose Host header is neither an address nor a known name is refused
(`http.hosts` adds names).

```yaml
scrape_configs:
  - job_name: prela
    authorization: {credentials_file: /etc/prometheus/prela.token}   # only if http.token is set
    static_configs: [{targets: ["127.0.0.1:9464"]}]
```

With `--json`, a service prints one JSON document per event on standard output, and its log as JSON lines on standard error.
Events are `ready`, `stopped`, and in `dev` each `decision`. Each has `event` and `service`; `ready` has the address or the sinks.
A log line has `time` (UTC), `level`, `logger`, `message` and, if there is one, `exception`.

`prela-stream demo` exposes its worker on the address of `PRELA_HTTP_LISTEN` and its sink on the next port.

A worker adds the counts of a partition when the commit that contains them has landed. So a worker that was killed has counted
no decision that its successor makes again.

Alerts that most installations want:

| condition | meaning |
|---|---|
| `/readyz` is not 200 for minutes | the reasons are in its answer |
| `prela_worker_lag_records` grows | the workers are too slow: add one, up to one for each partition |
| `prela_worker_partitions{state="stalled"}` > 0 | a partition is restored again and again without a commit |
| `prela_worker_poison_items_total` grows | a producer writes what cannot be read; the items are in the `dlq` topic |
| `prela_worker_partitions{state="poisoned"}` > 0 | many items are unreadable: a producer probably writes another format |
| `prela_worker_forgotten_decisions_total` grows | raise `assembly.max_decided_bytes`, or use more partitions |
| `prela_worker_clock_jumps_total` grows | the clock of a broker is wrong |
| `prela_sink_retries_total` grows | a sink cannot write; nothing is lost as long as the topic keeps the records |
| `prela_agent_dropped_items_total` grows | spans are lost in an agent, by reason |
| `prela_swallowed_errors_total` grows | a defect of this package; the first of each kind is in the log |

## In programs

`prela_stream.metrics()` returns the metrics of the process, for example
`prela.metrics().value("prela_agent_dropped_items_total", reason="queue_full")`. A forked child counts from zero.
"""
_SECTIONS: Final[dict[Component, str]] = {
    "agent": "Agents",
    "worker": "Workers",
    "sink": "Sinks, and programs that read kept traces",
    "otlp": "Receivers of OTLP",
    "any": "Every process",
}


def text() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for component, title in _SECTIONS.items():
        parts += [f"## {title}\n", "| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|"]
        parts += [_row(metric) for metric in telemetry.declared(component)]
        parts.append("")
    parts.append("## Buckets\n\n| histogram | upper bounds |\n|---|---|")
    parts += [f"| `{one.name}` | {_bounds(one)} |" for one in telemetry.declared() if isinstance(one, Histogram)]
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {cell(metric.meaning)} |"


def _bounds(metric: Histogram) -> str:
    return ", ".join(f"{bound:,g}" for bound in metric.bounds)
