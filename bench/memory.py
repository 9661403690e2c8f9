"""Memory of undecided spans and of remembered decisions, as growth of the resident set of a process (RSS).

Each row runs in a new process. An undecided span of 1 KB arrives in records of 100 spans; `over_wire` is what it takes in
addition to its bytes on the wire. Decisions are remembered at 10 per ms of stream time for an hour, or as many as `--decisions`.
5 % are of kept traces, and half of all are forgotten after the late window of 30 minutes. As many are read back for a replay that
begins before all of them. Prints one JSON document.

    python bench/memory.py [--core native] [--spans 300000] [--decisions 36000000]
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prela_stream.assembly.base import Core
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import choose_core
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model.decision import Basis, Decision, TraceSummary, Trigger, decision_id_of
from prela_stream.model.span import COUNTED, ItemKind, Resource
from prela_stream.transport.base import TopicPartition
from prela_stream.worker.packing import PackedDecisions

CORES = ("native", "python")
A_RECORD = 100
A_MS = 10
KEPT_EVERY = 20
BEGAN_MS = 1_790_000_000_000
SOURCE = TopicPartition("spans", 0)


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


def new_core(name: str) -> Core:
    """An empty core that forgets nothing early."""
    options = AssemblyOptions(max_decided_bytes=1 << 40, max_age_ms=720 * 3_600_000)
    return choose_core(name).new(options, (), 1 << 20)  # type: ignore[arg-type] # one of CORES


def undecided(name: str, spans: int, a_trace: int) -> dict[str, Any]:
    """The memory of spans whose root has not arrived."""
    rng = random.Random(7)
    text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=900))
    source = encode_resource(Resource(service_name="bench", sdk_version="0", host="h", pid=1))
    core = new_core(name)
    list(core.due(BEGAN_MS))
    begin, wire = rss(), 0
    trace_id = parent = b""
    items: list[bytes] = []
    for number in range(spans):
        if number % a_trace == 0:
            trace_id, parent = rng.randbytes(16), rng.randbytes(8)
        body = {"gen_ai.input.messages": text}
        items.append(
            encode_item(
                ItemKind.SPAN,
                trace_id,
                rng.randbytes(8),
                parent,
                COUNTED,
                1,
                0,
                0,
                0,
                None,
                1,
                BEGAN_MS * 1_000_000,
                1_500_000_000,
                "chat model-large",
                None,
                None,
                body,
                [],
                [],
                None,
            )
        )
        if len(items) == A_RECORD:
            wire += sum(map(len, items))
            core.add(encode_batch(source, items), number // A_RECORD)
            items = []
    taken = (rss() - begin) / spans
    assert core.open_spans == spans
    return {
        "core": name,
        "spans_a_trace": a_trace,
        "bytes_on_wire": round(wire / spans),
        "bytes": round(taken),
        "over_wire": round(taken - wire / spans),
    }


def kept(number: int, trace_id: bytes) -> Decision:
    """A decision as a worker makes it."""
    return Decision(
        trace_id=trace_id,
        decision_id=decision_id_of(SOURCE.topic, SOURCE.partition, trace_id, number),
        kept=True,
        probability=0.05,
        threshold=0xF333000000000,
        weight=20.0,
        policy="rest",
        reason="5% of all traces",
        trigger=Trigger.COMPLETE,
        complete=True,
        first_offset=number,
        cut_offset=number + 20,
        decided_at_ms=BEGAN_MS + number // A_MS,
        policy_version="0123456789abcdef",
        summary=TraceSummary(
            root_name="research",
            service="agents",
            start_ns=(BEGAN_MS + number) * 1_000_000,
            duration_ns=1_500_000_000 + number,
            spans=10,
            input_tokens=12_340,
            output_tokens=number % 10_000,
            cost_usd=0.0001 * (number % 10_000),
            shape_hash=trace_id.hex(),
        ),
        basis=Basis.COUNTS,
    )


def decisions(name: str, count: int, kept_every: int) -> dict[str, Any]:
    """The memory of decisions on random traces; `kept_every` 0: all are dropped."""
    core, packed = new_core(name), PackedDecisions(SOURCE)
    list(core.due(BEGAN_MS))
    begin = rss()
    for ms in range(count // A_MS):
        now = BEGAN_MS + ms
        if ms % 10 == 0:
            list(core.due(now))
            while core.expire() is not None:
                pass
        for number in range(ms * A_MS, (ms + 1) * A_MS):
            trace_id = os.urandom(16)
            is_kept = kept_every and number % kept_every == 0
            core.remember(trace_id, packed.pack(kept(number, trace_id)) if is_kept else None, now)
    taken = rss() - begin
    return {
        "core": name,
        "decisions": count,
        "kept": f"1 in {kept_every}" if kept_every else "none",
        "bytes_a_decision": round(taken / count, 1),
        "rss_mb": round(rss() / 1e6),
    }


def loaded(name: str, count: int, kept_every: int) -> dict[str, Any]:
    """The memory of decisions that are read back, the oldest open trace being older than all of them, and of the replay.

    They take effect one after the other in the replay, which reads again what they cover. `longest_ms`: of 100 loads, and of a
    call of `expire`.
    """
    core, packed = new_core(name), PackedDecisions(SOURCE)
    core.restore_clock(BEGAN_MS)
    began, begin = time.process_time(), rss()
    longest, step = 0.0, time.thread_time()
    for number in range(count):
        if number % A_RECORD == 0:
            longest, step = max(longest, time.thread_time() - step), time.thread_time()
        trace_id = os.urandom(16)
        is_kept = kept_every and number % kept_every == 0
        entry = packed.pack(kept(number, trace_id)) if is_kept else None
        core.load(trace_id, entry, BEGAN_MS + number // A_MS, max(0, number // 100 - 1000), number // 100 + 1)
    most = taken = rss()
    load_s, longest_load, longest = time.process_time() - began, longest, 0.0
    for ms in range(0, count // A_MS + 2, 10):
        list(core.due(BEGAN_MS + ms))
        more = True
        while more:
            step = time.thread_time()
            more = core.expire() is not None
            longest = max(longest, time.thread_time() - step)
        if ms % 1_000 == 0:
            most = max(most, rss())
    return {
        "core": name,
        "loaded": count,
        "kept": f"1 in {kept_every}" if kept_every else "none",
        "bytes_a_decision_loaded": round((taken - begin) / count, 1),
        "bytes_a_decision_most": round((most - begin) / count, 1),
        "bytes_a_decision_after": round((rss() - begin) / count, 1),
        "most_rss_mb": round(most / 1e6),
        "load_us": round(load_s * 1e6 / count, 2),
        "replay_us": round((time.process_time() - began - load_s) * 1e6 / count, 2),
        "longest_ms": [round(one * 1000, 1) for one in (longest_load, longest)],
    }


def in_new_process(row: str) -> dict[str, Any]:
    """One row: the arguments of its function, separated by commas."""
    done = subprocess.run([sys.executable, __file__, "--row", row], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", choices=CORES, action="append", help="default: both")
    parser.add_argument("--spans", type=int, default=300_000)
    parser.add_argument(
        "--decisions", type=int, default=36_000_000, help="of the native core; of the other one a tenth"
    )
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        function, core, *numbers = arguments.row.split(",")
        rows: dict[str, Callable[..., dict[str, Any]]] = {
            "undecided": undecided,
            "decisions": decisions,
            "loaded": loaded,
        }
        sys.stdout.write(json.dumps(rows[function](core, *map(int, numbers))))
        return
    result: dict[str, Any] = {"bench": "memory", "undecided": [], "decisions": [], "loaded": []}
    for core in arguments.core or CORES:
        result["undecided"] += [in_new_process(f"undecided,{core},{arguments.spans},{size}") for size in (10, 1)]
        most = arguments.decisions if core == "native" else arguments.decisions // 10
        few = min(most, 2_000_000)
        result["decisions"] += [
            in_new_process(f"decisions,{core},{count},{every}")
            for count, every in ((few, 0), (few, 1), (most, KEPT_EVERY))
        ]
        result["loaded"] += [
            in_new_process(f"loaded,{core},{count},{every}") for count, every in ((few, 0), (most, KEPT_EVERY))
        ]
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
