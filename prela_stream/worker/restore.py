"""Takes over a partition: loads its committed decisions, sets the clock of the low watermark L, prepares the replay from L."""

import logging
from time import monotonic

import anyio.lowlevel

from prela_stream import telemetry
from prela_stream.assembly.options import AssemblyOptions
from prela_stream.assembly.selection import CoreKind
from prela_stream.codec.decisions import decode_decisions
from prela_stream.codec.versions import GROUP_HEADER
from prela_stream.errors import PrelaError
from prela_stream.model.decision import Decision
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.transport.base import Committed, Consumer, LogRecord, TopicPartition, Transport
from prela_stream.transport.options import TopicOptions
from prela_stream.worker.checkpoint import Checkpoint, read_checkpoint
from prela_stream.worker.options import WorkerOptions
from prela_stream.worker.partition import PartitionState

logger = logging.getLogger("prela_stream.worker")

CLOCK_SLACK_MS = 60_000
"""Brokers of `decisions` and `spans` may have different clocks. The search starts this much earlier."""
_LOAD_BYTES = 256 << 10
"""Most bytes of decisions that are fetched at once."""
_REPORT_S = 5.0
"""How long nothing more can be read before that is logged."""
_LOAD_STEP = 256
"""Decisions that are loaded between two turns of the event loop: about a millisecond."""


class TruncatedLogError(PrelaError):
    """Retention has deleted records that undecided traces need."""


async def restore(
    transport: Transport,
    source: TopicPartition,
    *,
    beginning: int,
    committed: Committed | None,
    topics: TopicOptions,
    assembly: AssemblyOptions,
    evaluator: Evaluator,
    options: WorkerOptions,
    core: CoreKind,
) -> PartitionState:
    """The state of `source` at its last commit. Apply records from `state.position` on.

    Call it after opening the writer of the partition, which fences the earlier writer, so that the committed state is final.
    `beginning` is the first offset of `source` that the log still has.

    Raises:
        CheckpointError: the committed metadata is not a checkpoint that this worker can use.
        TruncatedLogError: the log no longer has the records to start from.
    """
    state = PartitionState(
        source, topics=topics, assembly=assembly, evaluator=evaluator, options=options, core=core, start=beginning
    )
    if committed is None:
        telemetry.WORKER_RESTORES.add(1, "beginning")
        return state
    where = str(source)
    checkpoint = read_checkpoint(committed.metadata, partitions=topics.partitions, where=where)
    if beginning > committed.offset and checkpoint.position > committed.offset and not options.accept_truncation:
        msg = (
            f"{where}: undecided traces need the log from offset {committed.offset} on, but it begins at {beginning}. The "
            "retention of the topic is shorter than traces stay open: increase it. To continue without the deleted records, set "
            "worker.accept_truncation = true"
        )
        raise TruncatedLogError(msg)
    if beginning > checkpoint.position:
        logger.error(
            "%s: retention deleted the records from offset %d to %d before this consumer group read them. No worker ran for "
            "longer than the retention of the topic; increase it",
            where,
            checkpoint.position,
            beginning,
        )
    state.resume_at(max(committed.offset, beginning), checkpoint)
    decisions = await _read_decisions_back(transport, state, source, topics, checkpoint, assembly, options.group)
    replayed = max(0, checkpoint.position - state.position)
    telemetry.WORKER_RESTORES.add(1, "replay" if replayed else "committed")
    telemetry.WORKER_REPLAYED.observe(replayed)
    logger.info(
        "%s: taken over at offset %d; replaying %d offsets with %d decisions read back",
        where,
        checkpoint.position,
        replayed,
        decisions,
    )
    return state


async def _read_decisions_back(
    transport: Transport,
    state: PartitionState,
    source: TopicPartition,
    topics: TopicOptions,
    checkpoint: Checkpoint,
    assembly: AssemblyOptions,
    group: str,
) -> int:
    horizon_ms = checkpoint.clock_before_ms - 2 * assembly.late_window_ms
    where = TopicPartition(topics.decisions, source.partition)
    async with await transport.consumer([topics.decisions]) as log:
        await log.poll(timeout=0)  # a consumer without a group gets its assignment with its first poll
        # an open transaction, of a worker of another group, hides what this group committed after its first record
        end = await log.high_watermark(where)
        log.resume(where)
        await log.seek(where, await _first_needed(log, where, horizon_ms, group))
        count = 0
        at, report_at = -1, monotonic() + _REPORT_S
        while (position := await log.position(where)) < end:
            if position > at:
                at, report_at = position, monotonic() + _REPORT_S
            elif monotonic() >= report_at:
                report_at = float("inf")
                logger.warning(
                    "%s: %s cannot be read from offset %d on, and the decisions of group %s are needed up to %d. A transaction "
                    "of another writer has not ended there; this partition waits for its end. If that takes longer than "
                    "kafka.transaction_timeout_ms of that writer, abort it with kafka-transactions.sh (docs/kafka.md)",
                    source,
                    where,
                    position,
                    group,
                    end,
                )
            count += await _load(log, state, where, group)
    return count


async def _first_needed(log: Consumer, where: TopicPartition, horizon_ms: int, group: str) -> int:
    """An offset below which every decision of this group is older than `horizon_ms` of stream time.

    If a broker's clock ran fast when spans were stamped, recent decisions can have older log timestamps. So start at the
    timestamp and step back until a decision older than the horizon is found.
    """
    beginning = await log.beginning_offset(where)
    start = await log.offset_at(where, horizon_ms - CLOCK_SLACK_MS)
    step = 1
    while start > beginning:
        start = max(beginning, start - step)
        step *= 2
        await log.seek(where, start)
        found = (await log.poll(max_records=1)).records
        decisions = [one for record in found for one in _decisions_of(record, group)]
        if decisions and max(one.decided_at_ms for one in decisions) <= horizon_ms:
            break
    return start


def _decisions_of(record: LogRecord, group: str) -> list[Decision]:
    """The decisions of a record if this group wrote it. Another group on the same spans has other policies."""
    writer = dict(record.headers).get(GROUP_HEADER, group.encode())
    return decode_decisions(record.value or b"") if writer == group.encode() else []


async def _load(log: Consumer, state: PartitionState, where: TopicPartition, group: str) -> int:
    count = 0
    poll = await log.poll(max_bytes=_LOAD_BYTES)
    for record in poll.records:
        if record.partition == where.partition:
            for decision in _decisions_of(record, group):
                state.load(decision)
                count += 1
                if count % _LOAD_STEP == 0:
                    await anyio.lowlevel.checkpoint()  # other partitions may be committing
    await anyio.lowlevel.checkpoint()
    return count
