"""However large a record or a trace is, the partition does a bounded amount of work between two steps."""

from collections.abc import Callable
from types import ModuleType

import pytest

from prela_stream.assembly import deadlines, lazy_heap
from prela_stream.assembly.native_core import NativeCore
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec import rescue
from prela_stream.codec.spans import encode_batch, encode_item, encode_resource
from prela_stream.model import large_trace
from prela_stream.model.span import COUNTED, SUCCESS, ItemKind, Resource
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import load_policies
from prela_stream.transport.base import LogRecord, TopicPartition
from prela_stream.transport.options import TopicOptions
from prela_stream.worker import deciding
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState
from tests.support.cores import CORES, core_named
from tests.support.steps import SIZES, step_size
from tests.support.work import Work

SOURCE = TopicPartition("spans", 0)
RESOURCE = encode_resource(Resource(service_name="a"))
ITEMS = 2_000
STEP = 8
MOST = 8 * STEP
"""A step may finish one kind of work and begin the next, and a span is visited several times."""
DROP = '[[policy]]\nname = "none"\ntype = "probabilistic"\nprobability = 0.0\n'
KEEP = '[[policy]]\nname = "all"\ntype = "always"\n'
READ = """
[[policy]]
name = "a"
type = "not"
policies = [{type = "attribute", key = "k", equals = "v", span_type = "llm"}]

[[policy]]
name = "b"
type = "attribute"
key = "k"
on = "resource"
regex = "v"
"""
UNCOUNTED = (
    (rescue, "PIECE_STEPS"),
    (deadlines, "FEW"),
    (lazy_heap, "SLACK"),
    (large_trace, "STEP"),
    (deciding, "SPANS_TOGETHER"),
)
"""Work that has another test, a sort in C, no size of a step, and traces of which up to 16 are decided together."""


def span(trace: int, number: int, *, parent: int | None = None) -> bytes:
    ids = (trace.to_bytes(16, "big"), number.to_bytes(8, "big"), None if parent is None else parent.to_bytes(8, "big"))
    head = (COUNTED, SUCCESS, 0, 0, 0, None, 1, 10**18, 10**9, "chat", None, None)
    return encode_item(ItemKind.SPAN, *ids, *head)


class Log:
    """A partition with the log that it reads; its stream time is in ms."""

    def __init__(self, core: CoreKind, work: Work, policies: str = DROP, **options: int) -> None:
        self.work = work
        self.offset = 0
        self.state = PartitionState(
            SOURCE,
            topics=TopicOptions(),
            assembly=AssemblyOptions(**options),
            evaluator=Evaluator(load_policies(policies, source="test")),
            options=WorkerOptions(),
            core=core,
        )

    def append(self, now_ms: int, *items: bytes, value: bytes | None = None) -> None:
        """Append a record and apply it."""
        value = encode_batch(RESOURCE, items) if value is None else value
        record = LogRecord(topic="spans", partition=0, offset=self.offset, timestamp_ms=now_ms, value=value)
        self.offset += 1
        self.work.take(self.state, self.state.steps([record]))

    def until_due(self) -> None:
        """Move stream time so far that everything is due; the second record confirms the first."""
        tick = encode_item(ItemKind.TICK)
        self.append(10**9, tick)
        self.append(10**9, tick)
        assert self.state.counters.open == 0


def many_traces(core: CoreKind, work: Work) -> None:
    log = Log(core, work)
    log.append(1, *[span(number, 1) for number in range(ITEMS)])
    log.until_due()


def unreadable_items(core: CoreKind, work: Work) -> None:
    log = Log(core, work)
    log.append(1, *[b"\x93\x01\xc0\xc0"] * ITEMS)
    assert log.state.counters.dlq == ITEMS


def a_truncated_record(core: CoreKind, work: Work) -> None:
    log = Log(core, work)
    log.append(1, value=encode_batch(RESOURCE, [span(number, 1) for number in range(ITEMS)])[:-1])
    assert log.state.counters.dlq == 1


def late_spans(core: CoreKind, work: Work) -> None:
    log = Log(core, work, KEEP)
    log.append(1, *[span(number, 1) for number in range(ITEMS)])
    log.append(20_000, span(0, 2))
    log.append(20_000, *[span(number, 3) for number in range(ITEMS)])
    assert log.state.counters.late_kept > ITEMS, log.state.counters


def one_trace(policies: str, parent: int | None) -> Callable[[CoreKind, Work], None]:
    def a_large_trace(core: CoreKind, work: Work) -> None:
        log = Log(core, work, policies)
        for start in range(0, ITEMS, 10):
            numbers = range(start, start + 10)
            log.append(1, *[span(1, number, parent=parent) for number in numbers])
        log.until_due()

    return a_large_trace


def above_the_limit(core: CoreKind, work: Work) -> None:
    log = Log(core, work, max_spans=1)
    log.append(1, *[span(number, 1) for number in range(ITEMS)])
    log.append(1, *[span(number, 2) for number in range(ITEMS)])
    assert log.state.counters.dropped == 2 * ITEMS


def memory(core: CoreKind, work: Work) -> None:
    log = Log(core, work)
    log.append(1, *[span(number, 1) for number in range(ITEMS)])
    work.take(log.state, log.state.relieve(0))
    assert log.state.counters.dropped == ITEMS


CASES: dict[str, Callable[[CoreKind, Work], None]] = {
    "many traces": many_traces,
    "unreadable items": unreadable_items,
    "a truncated record": a_truncated_record,
    "late spans": late_spans,
    "a large trace": one_trace(DROP, 0),
    "a large trace that is kept": one_trace(KEEP, 0),
    "a large trace without a tree": one_trace(DROP, None),
    "a large trace that policies read": one_trace(READ, 0),
    "above the limit": above_the_limit,
    "memory": memory,
}


def most_work(case: str, core: CoreKind) -> int:
    with pytest.MonkeyPatch.context() as patch:
        work = Work(patch)
        CASES[case](core, work)
    assert work.all >= ITEMS, "the work is not counted"
    return work.most


@pytest.mark.parametrize("case", CASES)
def test_no_step_does_much_work(core: CoreKind, case: str) -> None:
    with step_size(STEP):
        assert most_work(case, core) <= MOST


@pytest.mark.parametrize(
    ("module", "name"),
    [pytest.param(*one, id=f"{one[0].__name__}.{one[1]}") for one in SIZES if one not in UNCOUNTED],
)
def test_a_step_without_a_limit_is_found(module: ModuleType, name: str) -> None:
    """The test above fails without any one of the sizes of steps."""
    with step_size(STEP, without=(module, name)):
        most = max(most_work(case, core_named(core)) for core in CORES for case in CASES)
    assert most > MOST


@pytest.mark.parametrize("without", [None, SIZES[0], SIZES[-1]])
def test_the_sizes_of_steps_are_restored(without: tuple[ModuleType, str] | None) -> None:
    """Otherwise the tests that follow in this process have small steps."""
    before = [getattr(*place) for place in SIZES]
    with step_size(STEP, without=without):
        assert [getattr(*place) for place in SIZES] == [1 << 40 if place == without else STEP for place in SIZES]
    assert [getattr(*place) for place in SIZES] == before


def test_the_next_deadline_is_found_a_few_traces_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a root, each trace waits longer than it first seems."""
    log = Log(core_named("native"), Work(monkeypatch))
    log.append(1, *[span(number, 2, parent=1) for number in range(ITEMS)])
    core = log.state._core
    assert isinstance(core, NativeCore)
    found: list[int | None] = []
    for _ in range(2 * ITEMS // 128):
        before = core._partition.work
        found.append(core.next_deadline_ms())
        assert core._partition.work - before <= 256
    first, last = found[0], found[-1]
    assert first is not None
    assert last is not None
    assert first < last
    log.append(last - 1, encode_item(ItemKind.TICK))
    log.append(last - 1, encode_item(ItemKind.TICK))
    assert log.state.counters.open == ITEMS
    log.append(last, encode_item(ItemKind.TICK))
    assert log.state.counters.open == 0
