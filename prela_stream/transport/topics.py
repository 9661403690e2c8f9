"""Which topics a prefix needs and what each must be like; and, of those that are there, what is wrong with them."""

from collections.abc import Iterable, Mapping
from typing import Final

from prela_stream.errors import PrelaError
from prela_stream.transport.base import TopicSpec
from prela_stream.transport.options import TopicOptions

OVERHEAD_BYTES: Final = 16_384
"""What a worker writes around the bytes that it passes on. The largest Record of `spans` may be one span, or unreadable as a
whole: a kept trace or a dead letter holds it all, and says beside it what was decided or where it stood and why."""
TOMBSTONE_MS: Final = 86_400_000
"""How long a deleted key of `state` can still be seen to be deleted: longer than any reader of it takes."""
_CREATE: Final = "run `prela-stream topics create`"


class TopicMismatchError(PrelaError):
    """Topics are there and not as the settings say; the text holds what `check_topics` found. Trying again changes nothing."""


def topic_specs(options: TopicOptions) -> list[TopicSpec]:
    """The topics of a prefix as they should be: `spans`, `state`, `decisions`, `sampled` and `dlq`."""
    retention_ms = round(options.retention_hours * 3_600_000)
    size = options.max_record_bytes

    def log(name: str, partitions: int, max_record_bytes: int = size) -> TopicSpec:
        return TopicSpec(name=name, partitions=partitions, retention_ms=retention_ms, max_record_bytes=max_record_bytes)

    state = TopicSpec(
        name=options.state,
        partitions=options.partitions,
        cleanup="compact",
        retention_ms=TOMBSTONE_MS,
        max_record_bytes=size,
    )
    return [
        log(options.spans, options.partitions),
        state,
        log(options.decisions, options.partitions),
        log(options.sampled, options.sampled_partitions, size + OVERHEAD_BYTES),
        log(options.dlq, 1, size + OVERHEAD_BYTES),
    ]


def topic_names(options: TopicOptions) -> list[str]:
    """The names of the topics of a prefix."""
    return [spec.name for spec in topic_specs(options)]


def check_topics(options: TopicOptions, existing: Mapping[str, TopicSpec]) -> list[str]:
    """What keeps this prefix from working, one line a mistake: what was expected, what is there, what to do.

    `existing` is what `Transport.topics` returned. Longer retention and larger limits than asked for are no mistakes.
    """
    mistakes = []
    for spec in topic_specs(options):
        there = existing.get(spec.name)
        if there is None:
            mistakes.append(f"topic {spec.name}: expected {_describe(spec)}, there is none: {_CREATE}")
        else:
            mistakes += [f"topic {spec.name}: {line}" for line in _differences(options, spec, there)]
    return mistakes


def merge_mistakes(mistakes: Iterable[str]) -> list[str]:
    """What `check_topics` found, for people: one line for all topics of which the same is said."""
    topics: dict[str, list[str]] = {}
    for line in mistakes:
        name, _, said = line.removeprefix("topic ").partition(": ")
        topics.setdefault(said, []).append(name)
    return [f"topic{'s' * (len(names) > 1)} {', '.join(names)}: {said}" for said, names in topics.items()]


def check_retention(
    options: TopicOptions, existing: Mapping[str, TopicSpec], *, max_age_ms: int, late_window_ms: int
) -> list[str]:
    """What a worker that takes partitions over may find gone, one line a topic: the log is where undecided traces are kept.

    Args:
        options: Names of the topics.
        existing: What `Transport.topics` returned; those that are not there, or cannot be read, are passed over.
        max_age_ms: How old an undecided trace may get.
        late_window_ms: For how long after a decision late spans follow it; for as long again its trace is known.
    """
    needed = (
        (options.spans, max_age_ms, "traces stay undecided for as long (assembly.max_age_ms)"),
        (options.decisions, 2 * late_window_ms, "late spans follow a decision that is so old (twice late_window_ms)"),
    )
    return [
        f"topic {name}: expected Records to be kept for {least:,} ms or longer, for {why}; they are kept for "
        f"{there.retention_ms:,}: raise the topic's retention, or lower that setting"
        for name, least, why in needed
        if (there := existing.get(name)) is not None and there.readable and _shorter(there.retention_ms, least)
    ]


def _describe(spec: TopicSpec) -> str:
    plural = "" if spec.partitions == 1 else "s"
    return (
        f"{spec.partitions} partition{plural}, cleanup {spec.cleanup}, Records of up to {spec.max_record_bytes:,} bytes"
    )


def _differences(options: TopicOptions, spec: TopicSpec, there: TopicSpec) -> list[str]:
    # What is there is never changed by `topics create`: it may be in use.
    anew = f"choose another prefix than {options.prefix!r} and {_CREATE}"
    lines = []
    if there.partitions != spec.partitions:
        lines.append(
            f"expected {spec.partitions} partitions, there are {there.partitions}, and the number is fixed for a prefix: set "
            f"it to {there.partitions}, or {anew}"
        )
    if not there.readable:
        return [*lines, *there.flaws]
    if there.cleanup != spec.cleanup:
        lines.append(f"expected cleanup {spec.cleanup}, it is {there.cleanup}: correct the topic, or {anew}")
    if there.max_record_bytes < spec.max_record_bytes:
        lines.append(
            f"expected Records of up to {spec.max_record_bytes:,} bytes, it takes {there.max_record_bytes:,}: raise the topic's "
            f"limit, lower max_record_bytes, or {anew}"
        )
    if _shorter(there.retention_ms, spec.retention_ms) and spec.cleanup == "delete":
        lines.append(
            f"expected Records to be kept for {spec.retention_ms:,} ms, they are kept for {there.retention_ms:,}: raise the "
            f"topic's retention, lower retention_hours, or {anew}"
        )
    return [*lines, *there.flaws]


def _shorter(there: int | None, expected: int | None) -> bool:
    return there is not None and (expected is None or there < expected)
