"""Runs every benchmark of this folder and prints one JSON document; `--table` prints README's table instead.

    python bench/run.py [--table]

Each benchmark is a script that runs alone; the machine, its load and the commit are part of the document, for figures mean little
without them. Ratios travel between machines, absolute times do not.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = ("import_time", "span", "codec", "worker", "stall", "pipeline")


def run(name: str) -> Any:
    """The document of one benchmark; an error is printed and ends the run."""
    done = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def commit() -> str:
    """The commit that is measured."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def table(found: dict[str, Any]) -> str:
    """The figures that README shows, as Markdown."""
    span, stall = found["span"], found["stall"]["results"]
    peers = f"ddtrace {span['ddtrace_us']}, prela 0.1.0 {span['prela_us']}"
    (codec,) = [
        row for row in found["codec"]["decode"] if row["spans_in_record"] == 100 and 900 < row["span_bytes"] < 1100
    ]
    rows = [
        (
            "`with tracer.span()` + 3 attributes, encoded and queued (caller's side)",
            f"{span['ours_us']} µs",
            f"opentelemetry-sdk {span['otel_us']} ({span['otel_over_ours']} times as much), {peers}",
            "≤ 3 µs, ≤ 1/6 of opentelemetry-sdk",
        ),
        (
            "the same as a child",
            f"{span['ours_child_us']} µs",
            "",
            "",
        ),
        (
            "decode heads, 100 spans of 1 KB per record",
            f"{codec['heads']} µs a span",
            f"everything {codec['everything']}, json {codec['json']}",
            "",
        ),
    ]
    rows += [
        (
            (
                f"worker, {row['core']} core, {row['transport']}: spans per record {row['spans_a_record']}, "
                f"per trace {row['spans_a_trace']}, partitions {row['partitions']}, workers {row['workers']}"
            ),
            f"{row['spans_per_cpu_s']:,} spans/s per core",
            f"{row['cpu_us_a_span']} µs CPU a span",
            "≥ 250,000" if row["core"] == "native" and row["spans_a_record"] == 100 else "",
        )
        for row in found["worker"]["rows"]
    ]
    rows += [
        (
            f"event-loop stall at 10,000 spans/s, p99, pipeline {where}",
            f"{stall[key]['quietest']['p99_ms']:.2f} ms",
            f"median round {stall[key]['median']['p99_ms']:.2f}; nothing running {stall['idle']['quietest']['p99_ms']:.2f}",
            "≤ 1 ms",
        )
        for key, where in (("background", "in its thread"), ("own_loop", "on the agent's loop"))
    ]
    rows += _on_kafka(found["pipeline"])
    head = "| what | measured | beside it, in the same run | budget |\n|---|---|---|---|\n"
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _on_kafka(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    if "delivery" not in found:
        return [("delivery and latency on Kafka", "not measured", found["missing"], "")]
    delivery = found["delivery"]
    rows = [
        (
            "agent's CPU a span of 1 KB, queue to acknowledged on Kafka",
            f"{delivery['ours_cpu_us_a_span']} µs",
            f"opentelemetry-sdk with its OTLP exporter {delivery['otel_otlp_cpu_us_a_span']}",
            f"≤ {delivery['budget_cpu_us_a_span']} µs",
        )
    ]
    for row in found["latency"]:
        sampled, stored = row["sampled_ms"], row["stored_ms"]
        cost = f"{row['commits_per_s']:g} commits/s, worker {row['worker_cpu_share']:.1%} of a core"
        rows.append(
            (
                f"root's end → on `sampled`, commit interval {row['commit_interval_ms'] / 1000:g} s, p99",
                f"{sampled['p99'] / 1000:.2f} s",
                f"p50 {sampled['p50'] / 1000:.2f} s; in the store p99 {stored['p99'] / 1000:.2f} s; {cost}",
                "≤ 2 s" if row["commit_interval_ms"] == 1000 else "",
            )
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="Markdown instead of JSON")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    found |= {name: run(name) for name in SCRIPTS}
    print(table(found) if arguments.table else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
