"""The topics of a prefix, how each must be configured, and what is wrong with those that exist."""

from collections.abc import Iterable, Mapping
from typing import Final

from prela_stream.errors import PrelaError
from prela_stream.transport.base import TopicSpec
from prela_stream.transport.options import TopicOptions

OVERHEAD_BYTES: Final = 16_384
"""What a worker adds to bytes that it forwards. The largest record of `spans` may be one span, or unreadable as a whole: a kept
trace or a dead letter contains all of it, plus the decision, or the offset and the reason."""
_CREATE: Final = "run `prela-stream topics create`"


class TopicMismatchError(PrelaError):
    """Existing topics contradict the settings; the text has what `check_topics` found. Retrying changes nothing."""


def topic_specs(options: TopicOptions) -> list[TopicSpec]:
    """The topics that a prefix needs: `spans`, `decisions`, `sampled` and `dlq`."""
    retention_ms = round(options.retention_hours * 3_600_000)
    size = options.max_record_bytes

    def log(name: str, partitions: int, max_record_bytes: int = size) -> TopicSpec:
        return TopicSpec(name=name, partitions=partitions, retention_ms=retention_ms, max_record_bytes=max_record_bytes)

    return [
        log(options.spans, options.partitions),
        log(options.decisions, options.partitions),
        log(options.sampled, options.sampled_partitions, size + OVERHEAD_BYTES),
        log(options.dlq, 1, size + OVERHEAD_BYTES),
    ]


def topic_names(options: TopicOptions) -> list[str]:
    """The names of the topics of a prefix."""
    return [spec.name for spec in topic_specs(options)]


def check_topics(options: TopicOptions, existing: Mapping[str, TopicSpec]) -> list[str]:
    """What makes the topics of this prefix unusable. Each line has what was expected, what was found and what to do.

    `existing` is what `Transport.topics` returned. Longer retention and larger limits than expected are accepted.
    """
    mistakes = []
    for spec in topic_specs(options):
        found = existing.get(spec.name)
        if found is None:
            mistakes.append(f"topic {spec.name}: expected {_describe(spec)}, but it does not exist: {_CREATE}")
        else:
            mistakes += [f"topic {spec.name}: {line}" for line in _differences(options, spec, found)]
    return mistakes


def merge_mistakes(mistakes: Iterable[str]) -> list[str]:
    """The lines of `check_topics` for people: topics with the same mistake share one line."""
    topics: dict[str, list[str]] = {}
    for line in mistakes:
        name, _, mistake = line.removeprefix("topic ").partition(": ")
        topics.setdefault(mistake, []).append(name)
    return [f"topic{'s' * (len(names) > 1)} {', '.join(names)}: {mistake}" for mistake, names in topics.items()]


def check_retention(
    options: TopicOptions, existing: Mapping[str, TopicSpec], *, max_age_ms: int, late_window_ms: int
) -> list[str]:
    """Topics whose retention is shorter than a takeover needs, one line each. Undecided traces are durable only in the log.

    Args:
        options: Names of the topics.
        existing: What `Transport.topics` returned; topics that are missing or not readable are ignored.
        max_age_ms: The greatest age of an undecided trace.
        late_window_ms: How long after a decision late spans follow it; the trace is remembered for as long again.
    """
    needed = (
        (options.spans, max_age_ms, "traces stay undecided for as long (assembly.max_age_ms)"),
        (options.decisions, 2 * late_window_ms, "late spans follow a decision that is so old (twice late_window_ms)"),
    )
    return [
        f"topic {name}: expected records to be retained for at least {least:,} ms, because {why}; they are retained for "
        f"{found.retention_ms:,} ms: raise the topic's retention, or lower that setting"
        for name, least, why in needed
        if (found := existing.get(name)) is not None and found.readable and _shorter(found.retention_ms, least)
    ]


def _describe(spec: TopicSpec) -> str:
    plural = "" if spec.partitions == 1 else "s"
    return (
        f"{spec.partitions} partition{plural}, cleanup {spec.cleanup}, records of up to {spec.max_record_bytes:,} bytes"
    )


def _differences(options: TopicOptions, spec: TopicSpec, found: TopicSpec) -> list[str]:
    # `topics create` never changes an existing topic, because it may be in use.
    other_prefix = f"choose another prefix than {options.prefix!r} and {_CREATE}"
    lines = []
    if found.partitions != spec.partitions:
        lines.append(
            f"expected {spec.partitions} partitions, found {found.partitions}, and the number is fixed for a prefix: set "
            f"it to {found.partitions}, or {other_prefix}"
        )
    if not found.readable:
        return [*lines, *found.problems]
    if found.cleanup != spec.cleanup:
        lines.append(
            f"expected cleanup {spec.cleanup}, found {found.cleanup}: correct the topic's cleanup.policy, or {other_prefix}"
        )
    if found.max_record_bytes < spec.max_record_bytes:
        lines.append(
            f"expected records of up to {spec.max_record_bytes:,} bytes, it accepts {found.max_record_bytes:,}: raise the "
            f"topic's limit, lower topics.max_record_bytes, or {other_prefix}"
        )
    if _shorter(found.retention_ms, spec.retention_ms) and spec.cleanup == "delete":
        lines.append(
            f"expected records to be retained for {spec.retention_ms:,} ms, they are retained for {found.retention_ms:,} ms: "
            f"raise the topic's retention, lower topics.retention_hours, or {other_prefix}"
        )
    return [*lines, *found.problems]


def _shorter(found: int | None, expected: int | None) -> bool:
    return found is not None and (expected is None or found < expected)
