"""Every metric of the project, declared once: name, unit, meaning and labels.

`app/health.py` exposes them over HTTP, and `prela_stream.metrics()` returns them to the program. docs/metrics.md is generated
from this file. The beginning of a name is the process in which the metric counts.
"""

from typing import Final

from prela_stream.measures import Counter, Gauge, Histogram, Metrics, Source, declared, register, restart, snapshot

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "Metrics",
    "Source",
    "declared",
    "metrics",
    "register",
    "restart",
    "snapshot",
]


def metrics() -> Metrics:
    """The metrics of this process at this moment, for dashboards and tests of the program.

    `prela.metrics().value("prela_agent_dropped_items_total", reason="queue_full")` is one number. docs/metrics.md lists the
    names. A forked child counts from zero. Any thread may call this; it takes less than 1 ms.

    Returns:
        One `Reading` for each metric, with name, kind, unit, meaning and a value for each combination of labels. A metric that
        counted nothing has no values.
    """
    return snapshot()


SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
NUMBERS: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)
SIZES: Final = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)

# In every process -------------------------------------------------------------------------------------------------------------

SWALLOWED = Counter(
    "prela_swallowed_errors_total",
    "errors",
    "Errors of prela_stream that were not passed on to the program around it. The first of each kind is logged.",
    ("where", "error"),
)

# In the process of an agent ---------------------------------------------------------------------------------------------------

AGENT_QUEUE_ITEMS = Gauge(
    "prela_agent_queue_items", "items", "Items that wait in the queue or have been sent without a result."
)
AGENT_QUEUE_BYTES = Gauge("prela_agent_queue_bytes", "bytes", "Bytes of the items in `prela_agent_queue_items`.")
AGENT_ITEMS = Counter("prela_agent_items_total", "items", "Items that were recorded: spans and control items.")
AGENT_ACKNOWLEDGED = Counter(
    "prela_agent_acknowledged_items_total", "items", "Items that the transport has acknowledged."
)
AGENT_UNKNOWN = Counter(
    "prela_agent_unknown_items_total", "items", "Items that were sent, without an answer until the deadline."
)
AGENT_DROPS = Counter("prela_agent_dropped_items_total", "items", "Items that were dropped, by reason.", ("reason",))
AGENT_BATCH_ITEMS = Histogram("prela_agent_batch_items", "items", "Items in one record that was sent.", bounds=NUMBERS)
AGENT_BATCH_BYTES = Histogram("prela_agent_batch_bytes", "bytes", "Bytes of one record that was sent.", bounds=SIZES)
AGENT_SENDS = Counter("prela_agent_sends_total", "attempts", "Attempts to send a record, by result.", ("outcome",))
AGENT_ACK_LATENCY = Histogram(
    "prela_agent_acknowledgement_latency_seconds",
    "seconds",
    "From taking the first item of a batch from the queue until its acknowledgement, with all repetitions.",
    bounds=SECONDS,
)
ENDED_SPAN_CHANGES = Counter(
    "prela_agent_ended_span_changes_total",
    "calls",
    "Changes to a span after its end. They have no effect.",
    ("method",),
)
UNSAMPLED_SPANS = Counter("prela_agent_unsampled_spans_total", "spans", "Spans of traces that head sampling excluded.")
UNREAD_PARTS = Counter(
    "prela_agent_unread_parts_total",
    "parts",
    "Parts of model answers that could not be read. `prela.response.unread_parts` of a span has its number.",
    ("library",),
)
WITHHELD_VALUES = Counter(
    "prela_agent_withheld_values_total",
    "values",
    "Attributes that were not sent: content whose capture is off, withheld names, and spans whose redaction failed.",
    ("reason",),
)

# In a worker ------------------------------------------------------------------------------------------------------------------

WORKER_CORE = Gauge(
    "prela_worker_core",
    "workers",
    "1 for the core that does the work per span, `native` or `python`, with the version of the native one.",
    ("core", "version"),
)
WORKER_LAG = Gauge(
    "prela_worker_lag_records", "records", "Records of a partition that are not yet applied.", ("partition",)
)
WORKER_OPEN_TRACES = Gauge("prela_worker_open_traces", "traces", "Undecided traces of a partition.", ("partition",))
WORKER_OPEN_BYTES = Gauge(
    "prela_worker_open_bytes", "bytes", "Bytes held for the undecided traces of a partition.", ("partition",)
)
WORKER_OLDEST_AGE = Gauge(
    "prela_worker_oldest_undecided_age_seconds",
    "seconds",
    "Stream time since the first record of the oldest undecided trace of a partition, 0 if none is open.",
    ("partition",),
)
WORKER_WATERMARK_AGE = Gauge(
    "prela_worker_watermark_age_seconds",
    "seconds",
    "Stream time between the committed low watermark of a partition and its clock: what a takeover replays.",
    ("partition",),
)
WORKER_APPLIED_AGE = Gauge(
    "prela_worker_applied_age_seconds",
    "seconds",
    "Wall time since the log-append time of the last record that was applied, 0 if every record is applied.",
    ("partition",),
)
WORKER_PARTITIONS = Gauge(
    "prela_worker_partitions",
    "partitions",
    "Assigned partitions by state: `restoring`, `replaying`, `running`; in addition `stalled` (restored again and again) and "
    "`poisoned` (many unreadable items).",
    ("state",),
)
WORKER_ITEMS = Counter("prela_worker_items_total", "items", "Items of the `spans` topic that were consumed.")
WORKER_DECISIONS = Counter(
    "prela_worker_decisions_total",
    "traces",
    "Decided traces, by verdict, trigger and policy.",
    ("verdict", "trigger", "policy"),
)
WORKER_DECISION_LATENCY = Histogram(
    "prela_worker_decision_latency_seconds",
    "seconds",
    "From the stream time at which a trace was due until its decision was committed, by wall time. It includes the lag.",
    bounds=SECONDS,
)
WORKER_LATE_SPANS = Counter(
    "prela_worker_late_spans_total",
    "spans",
    "Spans that arrived after the decision on their trace, by its verdict.",
    ("verdict",),
)
WORKER_POISON = Counter(
    "prela_worker_poison_items_total",
    "items",
    "Items that could not be read and went to the `dlq` topic, grouped by record.",
)
WORKER_FORGOTTEN = Counter(
    "prela_worker_forgotten_decisions_total",
    "decisions",
    "Decisions that were forgotten before their time, because of `assembly.max_decided_bytes`.",
)
WORKER_COMMITS = Counter("prela_worker_commits_total", "commits", "Commits of partitions, by outcome.", ("outcome",))
WORKER_COMMIT_SECONDS = Histogram(
    "prela_worker_commit_duration_seconds",
    "seconds",
    "How long a commit took, by outcome.",
    ("outcome",),
    bounds=SECONDS,
)
WORKER_RESTORES = Counter(
    "prela_worker_restores_total",
    "restores",
    "Takeovers of a partition, by where they start: `beginning` (no commit yet), `committed` (nothing to replay) or `replay`.",
    ("start",),
)
WORKER_RESTORE_SECONDS = Histogram(
    "prela_worker_restore_duration_seconds",
    "seconds",
    "From opening the writer of a partition until its decisions were read back, without the replay.",
    bounds=SECONDS,
)
WORKER_REPLAYED = Histogram(
    "prela_worker_replay_offsets", "offsets", "Offsets that a takeover has to apply again.", bounds=(0.0, *NUMBERS)
)
WORKER_REBALANCES = Counter(
    "prela_worker_rebalances_total", "rebalances", "Assignments that the worker received from its group."
)
WORKER_RETURNED = Counter(
    "prela_worker_returned_partitions_total",
    "partitions",
    "Partitions that a rebalance revoked and assigned to this worker again, without a restore.",
)
WORKER_FENCES = Counter(
    "prela_worker_fences_total",
    "fences",
    "Writers of this worker that were fenced, because another worker opened the partition.",
)
WORKER_CLOCK_JUMPS = Counter(
    "prela_worker_clock_jumps_total",
    "records",
    "Records whose log-append time stream time did not follow: `ahead` of the next record, or set `back`.",
    ("direction",),
)
WORKER_FAILURES = Counter(
    "prela_worker_partition_failures_total", "failures", "Failures after which a partition is restored from the log."
)
WORKER_READ_ERRORS = Counter(
    "prela_worker_read_errors_total",
    "attempts",
    "Failed attempts to read from the transport, which the worker repeats.",
)

# In a sink, or in a program that reads kept traces ----------------------------------------------------------------------------

_SINK = ("group", "topic")
"""The consumer group, which is one for each sink, and the topic."""

SINK_LAG = Gauge("prela_sink_lag_records", "records", "Records that the sink has not yet read.", _SINK)
SINK_RECORDS = Counter("prela_sink_records_total", "records", "Records that the sink has made durable.", _SINK)
SINK_BATCH_RECORDS = Histogram(
    "prela_sink_batch_records", "records", "Records in one batch that the sink has made durable.", _SINK, bounds=NUMBERS
)
SINK_WRITE_SECONDS = Histogram(
    "prela_sink_write_duration_seconds",
    "seconds",
    "How long the sink took to make a batch durable.",
    _SINK,
    bounds=SECONDS,
)
SINK_RETRIES = Counter(
    "prela_sink_retries_total",
    "attempts",
    "Failed attempts to write a batch or to commit its offsets, which the sink repeats.",
    ("group",),
)
SINK_REJECTED_SPANS = Counter(
    "prela_sink_rejected_spans_total",
    "spans",
    "Spans that the destination of a sink refused for good. They are left out. The first refusal is logged.",
    ("destination",),
)
SINK_READ_ERRORS = Counter(
    "prela_sink_read_errors_total", "attempts", "Failed attempts to read from the transport, which are repeated."
)
SINK_BAD_RECORDS = Counter(
    "prela_sink_bad_records_total",
    "records",
    "Records that could not be read and were skipped. The first is logged.",
    ("topic",),
)
SINK_BAD_ITEMS = Counter(
    "prela_sink_bad_items_total", "spans", "Spans within readable records that could not be read and were skipped."
)

# In a receiver of OTLP ---------------------------------------------------------------------------------------------------------

OTLP_REQUESTS = Counter(
    "prela_otlp_requests_total",
    "requests",
    "Requests by entry (`http`, `grpc`) and by the status of the answer, or `disconnected` without one.",
    ("entry", "status"),
)
OTLP_SPANS = Counter(
    "prela_otlp_spans_total",
    "spans",
    "Spans that the log has acknowledged, by entry (`http`, `grpc`, `topic`).",
    ("entry",),
)
OTLP_REJECTED = Counter(
    "prela_otlp_rejected_spans_total",
    "spans",
    "Spans, or whole records of a topic, that were rejected because they are not valid. The log has an example.",
    ("entry",),
)
OTLP_QUEUE_BYTES = Gauge(
    "prela_otlp_queue_bytes", "bytes", "Bytes of requests and records that wait for an acknowledgement."
)
OTLP_TOPIC_LAG = Gauge(
    "prela_otlp_topic_lag_records",
    "records",
    "Records of a partition that `--from-topic` has not read.",
    ("topic", "partition"),
)
OTLP_COMMITS = Counter(
    "prela_otlp_commits_total",
    "commits",
    "Commits of `--from-topic`, by outcome. Each has spans and an offset.",
    ("outcome",),
)
OTLP_SENDS = Counter(
    "prela_otlp_sends_total", "attempts", "Attempts to append records to the log, by result.", ("outcome",)
)
OTLP_ACK_LATENCY = Histogram(
    "prela_otlp_acknowledgement_latency_seconds",
    "seconds",
    "From the conversion of a request until the log has acknowledged its records.",
    bounds=SECONDS,
)

# In every process that uses a transport -------------------------------------------------------------------------------------

UNREAD_BATCHES = Counter(
    "prela_kafka_unread_batches_total",
    "batches",
    "Batches that are larger than `kafka.max_batch_bytes` decompressed. They are poison.",
    ("topic",),
)
KAFKA_TOPICS_RECREATED = Counter(
    "prela_kafka_topics_recreated_total",
    "topics",
    "Topics on Kafka that were deleted and created again while a consumer of this process read them.",
)
LOCAL_LOGS_REPLACED = Counter(
    "prela_local_logs_replaced_total",
    "files",
    "Log files of the local transport that were removed or replaced while this process used them.",
)
