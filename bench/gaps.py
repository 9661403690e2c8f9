"""The longest time that a worker holds the event loop: from one yield of `PartitionState.steps` to the next, with hostile input.

CPU time of the thread, so that load of the machine does not count. Each row runs in a new process. Prints one JSON document a
row: the longest gap and, if it is over the budget of 10 ms, how many gaps are.

    python bench/gaps.py [--core native] [--case many_due]
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from bench.memory import kept
from bench.worker import POLICIES
from prela_stream.app.garbage import rare_collections
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import choose_core
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model.decision import Decision
from prela_stream.model.span import COUNTED, SUCCESS, ItemKind, Resource
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord, TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.checkpoint import Checkpoint, ItemCounters
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState

BUDGET_MS = 10.0
BEGAN_MS = 1_790_000_000_000
SOURCE = TopicPartition("spans", 0)
RESOURCE = encode_resource(Resource(service_name="bench", sdk_version="0", host="h", pid=1))
READ_ALL = """
[[policy]]
name = "text"
type = "attribute"
key = "text"
regex = "[a-z]$"

[[policy]]
name = "text of a tool"
type = "not"
policies = [{type = "attribute", key = "text", regex = "[a-z]$", span_type = "tool"}]
probability = 0.0

[[policy]]
name = "cancelled tool"
type = "status"
statuses = ["SUCCESS", "CANCELLED"]
span_type = "tool"

[[policy]]
name = "host"
type = "attribute"
key = "host.name"
on = "resource"
regex = "[A-Z]$"
"""
KEEP_ALL = '[[policy]]\nname = "all"\ntype = "always"\n'


class Log:
    """Builds the records of a partition."""

    def __init__(self, seed: int = 7) -> None:
        self.rng = random.Random(seed)
        self.offset = 0

    def record(self, value: bytes, at_ms: int) -> LogRecord:
        """The next record."""
        self.offset += 1
        return LogRecord(
            topic=SOURCE.topic, partition=0, offset=self.offset - 1, timestamp_ms=BEGAN_MS + at_ms, value=value
        )

    def span(self, trace_id: bytes, parent: bytes | None, children: int, size: int = 0, text: str = "") -> bytes:
        """A span with an attribute of this size, or with this one."""
        body = {"text": text or "x" * size} if size or text else {}
        times = (None, 1, BEGAN_MS * 1_000_000, 1_500_000_000, "chat", None, None)
        ids = (trace_id, self.rng.randbytes(8), parent, COUNTED)
        return encode_item(ItemKind.SPAN, *ids, SUCCESS, 0, children, 0, *times, body, [], [], None)

    def of(self, items: Iterable[bytes], at_ms: int, a_record: int = 100) -> Iterator[LogRecord]:
        """The items in records."""
        batch: list[bytes] = []
        for item in items:
            batch.append(item)
            if len(batch) == a_record:
                yield self.record(encode_batch(RESOURCE, batch), at_ms)
                batch = []
        if batch:
            yield self.record(encode_batch(RESOURCE, batch), at_ms)

    def roots(self, count: int, size: int = 0) -> Iterator[bytes]:
        """Complete traces of one span."""
        return (self.span(self.rng.randbytes(16), None, 0, size) for _ in range(count))

    def one_trace(self, spans: int, size: int = 0, *, different: bool = False) -> Iterator[bytes]:
        """A trace whose root has all other spans as children. With `different`, the attribute is another one in each span."""
        trace_id = self.rng.randbytes(16)
        parent = self.rng.randbytes(8)
        return (self.span(trace_id, parent, 0, size, str(number) if different else "") for number in range(spans))


class Gaps:
    """Measures."""

    def __init__(self, core: str, policies: str = POLICIES, **assembly: Any) -> None:
        self.core = core
        self.found: list[float] = []
        self.state = PartitionState(
            SOURCE,
            topics=TopicOptions(),
            assembly=AssemblyOptions(**assembly),
            evaluator=Evaluator(load_policies(policies, source="bench")),
            options=WorkerOptions(),
            core=choose_core(core),  # type: ignore[arg-type] # one of CORES
        )

    def apply(self, records: Iterable[LogRecord]) -> None:
        """Apply records."""
        for record in records:
            self.take(self.state.steps([record]))

    def take(self, steps: Iterator[int]) -> None:
        """Take steps, measure each, and commit what is sealed."""
        began = time.thread_time()
        for _ in steps:
            self.found.append(time.thread_time() - began)
            self.commit()
            began = time.thread_time()
        self.found.append(time.thread_time() - began)
        self.commit()

    def commit(self) -> None:
        """Take out what is sealed."""
        while self.state.is_sealed:
            self.state.freeze()

    def load(self, decision: Decision) -> None:
        """Load a decision, and measure it."""
        self.call(lambda: self.state.load(decision))

    def call(self, function: Callable[[], object]) -> None:
        """Measure a call."""
        began = time.thread_time()
        function()
        self.found.append(time.thread_time() - began)


def many_items(core: str) -> Gaps:
    """Records of 16,384 tiny items, each a trace."""
    gaps, log = Gaps(core), Log()
    gaps.apply(log.of(log.roots(163_840), 0, 16_384))
    return gaps


def long_trace(core: str) -> Gaps:
    """A trace of 100,000 spans becomes due."""
    gaps, log = Gaps(core, max_spans=1_000_000, max_bytes=1 << 30), Log()
    gaps.apply(log.of(log.one_trace(100_000), 0))
    gaps.apply(log.of(log.roots(1), 20_000))
    gaps.apply(log.of(log.roots(1), 1_000_000_000))
    gaps.apply(log.of(log.roots(1), 1_000_000_001))
    return gaps


def policies(core: str) -> Gaps:
    """A trace of 100,000 spans with different texts, all of which the policies read."""
    gaps, log = Gaps(core, READ_ALL, max_bytes=1 << 30), Log()
    gaps.apply(log.of(log.one_trace(100_000, different=True), 0))
    gaps.apply(log.of(log.roots(1), 1_000_000_000))
    gaps.apply(log.of(log.roots(1), 1_000_000_001))
    return gaps


def many_open(core: str) -> Gaps:
    """500,000 traces are open, one after the other."""
    gaps, log = Gaps(core), Log()
    rng = log.rng
    gaps.apply(log.of((log.span(rng.randbytes(16), rng.randbytes(8), 0) for _ in range(500_000)), 0))
    return gaps


def many_due(core: str) -> Gaps:
    """100,000 traces are due at one record."""
    gaps, log = Gaps(core), Log()
    gaps.apply(log.of(log.roots(100_000), 0))
    gaps.apply(log.of(log.roots(1), 20_000))
    return gaps


def large_kept(core: str) -> Gaps:
    """A trace of 50 MB is kept."""
    gaps, log = Gaps(core, KEEP_ALL, max_bytes=1 << 30), Log()
    gaps.apply(log.of(log.one_trace(5_000, 10_000), 0, 50))
    gaps.apply(log.of(log.roots(1), 1_000_000_000))
    gaps.apply(log.of(log.roots(1), 1_000_000_001))
    return gaps


def dead_letters(core: str) -> Gaps:
    """100,000 dead letters: unreadable items in records of 10,000, and 10,000 unreadable records."""
    gaps, log = Gaps(core), Log()
    gaps.apply(log.of((b"\x93\x01\xc0\xc0" for _ in range(100_000)), 0, 10_000))
    gaps.apply(log.record(b"\x00junk", 0) for _ in range(10_000))
    return gaps


def over_limits(core: str) -> Gaps:
    """1,000 traces exceed `max_spans` with one record."""
    gaps, log = Gaps(core, max_spans=10), Log()
    traces = [(log.rng.randbytes(16), log.rng.randbytes(8)) for _ in range(1_000)]
    for _ in range(10):
        gaps.apply(log.of((log.span(*one, 0) for one in traces), 0, 1_000))
    gaps.apply(log.of((log.span(*one, 0) for one in traces), 0, 1_000))
    return gaps


def memory_full(core: str) -> Gaps:
    """`relieve` decides 100,000 traces."""
    gaps, log = Gaps(core), Log()
    gaps.apply(log.of(log.roots(100_000), 0))
    gaps.take(gaps.state.relieve(0))
    return gaps


def closed_many(core: str) -> Gaps:
    """1,000,000 traces are closed out of turn, behind one that is open. Then records arrive."""
    gaps, log = Gaps(core), Log()
    short = (log.span(log.rng.randbytes(16), log.rng.randbytes(8), 0, 200) for _ in range(1_000_000))
    gaps.apply(log.of([log.span(log.rng.randbytes(16), log.rng.randbytes(8), 0)], 0))
    gaps.apply(log.of(short, 0, 1_000))
    gaps.take(gaps.state.relieve(1_024))  # the smallest one stays, which began first
    assert gaps.state.status().open_traces == 1
    for at_ms in range(3_000):
        gaps.apply(log.of(log.roots(1), at_ms))
        gaps.call(gaps.state.ms_to_next_deadline)
    for at_ms in (100_000_000, 1_000_000_000, 1_000_000_001):
        gaps.apply(log.of(log.roots(1), at_ms))
        gaps.call(gaps.state.ms_to_next_deadline)
    return gaps


def expiry(core: str) -> Gaps:
    """1,000,000 decisions expire at one record."""
    gaps, log = Gaps(core), Log()
    for _ in range(1_000_000):
        gaps.state._core.remember(log.rng.randbytes(16), None, BEGAN_MS)  # faster than to decide them
    gaps.apply(log.of(log.roots(1), 0))
    gaps.apply(log.of(log.roots(1), 20_000))
    for at_ms in (2_000_000, 2_000_001, 4_000_000, 4_000_001):
        gaps.apply(log.of(log.roots(1), at_ms))
    return gaps


def restored(core: str) -> Gaps:
    """1,000,000 decisions are loaded, 300,000 of them of the record at which the replay ends. Then it begins."""
    gaps, log = Gaps(core), Log()
    counters = ItemCounters()
    checkpoint = Checkpoint(partitions=3, position=50, clock_before_ms=BEGAN_MS, clock_ms=BEGAN_MS, counters=counters)
    gaps.state.resume_at(0, checkpoint)
    template = kept(0, b"\0" * 16)
    for number in range(1_000_000):
        at = 0 if number < 100_000 else 10_000 if number < 700_000 else 20_000
        one = msgspec.structs.replace(
            template,
            trace_id=log.rng.randbytes(16),
            kept=number % 20 == 0,
            decided_at_ms=BEGAN_MS + at,
            first_offset=0,
            cut_offset=20,
        )
        gaps.load(one)
    gaps.apply(log.of(log.roots(4_000), 0))
    gaps.apply(log.of(log.roots(4_000), 10_000))
    gaps.apply(log.of(log.roots(100), 25_000))
    return gaps


CASES = (
    many_items,
    long_trace,
    policies,
    many_open,
    many_due,
    large_kept,
    dead_letters,
    over_limits,
    memory_full,
    closed_many,
    expiry,
    restored,
)
CORES = ("native", "python")


def measure(core: str, case: str) -> dict[str, Any]:
    """One row."""
    function = next(one for one in CASES if one.__name__ == case)
    with rare_collections():
        gaps = function(core)
    found = sorted(gaps.found)
    over = [one for one in found if one * 1000 > BUDGET_MS]
    return {
        "case": case,
        "core": core,
        "longest_ms": round(found[-1] * 1000, 1),
        "over_10_ms": len(over),
        "steps": len(found),
        "what": function.__doc__,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", choices=CORES, action="append")
    parser.add_argument("--case", choices=[one.__name__ for one in CASES], action="append")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(*arguments.row.split(","))), flush=True)
        return
    for case in arguments.case or [one.__name__ for one in CASES]:
        for core in arguments.core or CORES:
            subprocess.run([sys.executable, "-m", "bench.gaps", "--row", f"{core},{case}"], check=True)


if __name__ == "__main__":
    main()
