"""Opens the transport, the sinks, the store and the policies that the settings name.

Adapters are imported where they are chosen, so that a process loads only those that its settings name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from prela_stream.errors import ConfigurationError
from prela_stream.sinks.registry import SINK_TYPES, load
from prela_stream.transport.options import AIOKAFKA_TESTED
from prela_stream.validation import absolute, read_text

if TYPE_CHECKING:
    from prela_stream.config import Settings
    from prela_stream.sampling.policyset import PolicySet
    from prela_stream.sinks.base import Sink
    from prela_stream.sinks.reader import TraceReader
    from prela_stream.sinks.settings import SinkSettings
    from prela_stream.transport.base import Transport


NOT_USABLE: Final = (ImportError, AttributeError, TypeError)
"""What importing the Kafka transport raises if aiokafka has moved or changed a name that it uses."""


def unusable_client(error: Exception) -> str:
    """What is wrong with the installed aiokafka, and what to do."""
    from importlib import metadata  # takes 15 ms

    try:
        found = f"aiokafka {metadata.version('aiokafka')}"
    except metadata.PackageNotFoundError:
        found = "no aiokafka"
    return (
        f"{found} is installed, and this release was tested with aiokafka{AIOKAFKA_TESTED} only. The Kafka transport cannot be "
        f"loaded ({type(error).__name__}: {error}): pip install 'aiokafka{AIOKAFKA_TESTED}'"
    )


def open_transport(settings: Settings) -> Transport:
    """The transport that the settings name. Connects to nothing yet.

    Raises:
        ConfigurationError: the installed aiokafka cannot be used.
    """
    if settings.transport == "kafka":
        try:
            from prela_stream.transport.kafka import KafkaTransport
        except NOT_USABLE as error:
            raise ConfigurationError(unusable_client(error)) from error
        return KafkaTransport(settings.kafka)
    from prela_stream.transport.local import LocalTransport

    return LocalTransport(settings.local)


def open_sink(sink: SinkSettings, transport: Transport) -> Sink:
    """A sink, for writing. Opens nothing yet. A sink that writes to topics uses `transport`."""
    kind = SINK_TYPES[sink.type]
    opened: Sink = load(kind.sink)(sink.options, *([transport] if kind.needs_transport else []))
    return opened


def store_of(settings: Settings) -> SinkSettings:
    """The first sink that can be read; raises ConfigurationError if there is none."""
    for sink in settings.sink:
        if SINK_TYPES[sink.type].reader is not None:
            return sink
    stores = " or ".join(repr(name) for name, kind in SINK_TYPES.items() if kind.reader is not None)
    found = ", ".join(f"{sink.name} ({sink.type})" for sink in settings.sink) or "none"
    msg = f"no sink of the settings can be read: expected a [[sink]] with type {stores}, found {found}"
    raise ConfigurationError(msg)


def open_reader(settings: Settings) -> TraceReader:
    """A reader of the store that the settings name; also while another process writes it. Opens nothing yet."""
    store = store_of(settings)
    reader = SINK_TYPES[store.type].reader
    assert reader is not None
    opened: TraceReader = load(reader)(store.options)
    return opened


def chosen_sinks(settings: Settings, only: Sequence[str] = ()) -> tuple[SinkSettings, ...]:
    """The sinks of these names, or all of them; raises ConfigurationError for a name that no sink has, or if there is none."""
    names = [sink.name for sink in settings.sink]
    if unknown := [name for name in only if name not in names]:
        msg = (
            f"--only: no sink is named {', '.join(map(repr, unknown))}; the settings name {', '.join(names) or 'none'}"
        )
        raise ConfigurationError(msg)
    if not settings.sink:
        msg = 'the settings name no sink: add a [[sink]] table, or remove "sink = []" for the default one'
        raise ConfigurationError(msg)
    return tuple(sink for sink in settings.sink if not only or sink.name in only)


def load_policy_set(settings: Settings) -> PolicySet:
    """The policies of `policies_file`, or the default ones; raises ConfigurationError with every mistake of the file."""
    from prela_stream.sampling.policyset import default_policies, load_policies

    if settings.policies_file is None:
        return default_policies()
    path = Path(settings.policies_file)
    text = read_text(path, "policy file", "Name a TOML file that can be read, or none for the default policies")
    return load_policies(text, source=absolute(path))


def dev_policy_set(settings: Settings) -> PolicySet:
    """As `load_policy_set`; without a policy file every trace is kept, because `dev` is for looking at what was written."""
    if settings.policies_file is not None:
        return load_policy_set(settings)
    from prela_stream.sampling.policyset import keep_all_policies

    return keep_all_policies()


def group_of(settings: Settings, name: str) -> str:
    """The name of a consumer group: it begins with the prefix of the topics, so that two prefixes on a cluster never mix."""
    return f"{settings.topics.prefix}.{name}"


async def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing; returns their names."""
    async with open_transport(settings) as transport:
        return await make_topics(settings, transport)


async def ensure_topics(settings: Settings) -> tuple[list[str], list[str]]:
    """Create the topics that are missing; returns their names, and a line for each mistake in any topic.

    A login that may create topics may not be allowed to read their configuration. Topics that cannot be read are not checked.
    """
    from prela_stream.transport.topics import check_topics as check
    from prela_stream.transport.topics import topic_names

    async with open_transport(settings) as transport:
        created = await make_topics(settings, transport)
        existing = await transport.topics(topic_names(settings.topics))
    known = {
        name: spec if spec.readable else msgspec.structs.replace(spec, problems=()) for name, spec in existing.items()
    }
    return created, check(settings.topics, known)


async def check_topics(settings: Settings) -> list[str]:
    """One line for each mistake in the topics; empty if there is none."""
    from prela_stream.transport.topics import check_topics as check
    from prela_stream.transport.topics import topic_names

    async with open_transport(settings) as transport:
        return check(settings.topics, await transport.topics(topic_names(settings.topics)))


async def make_topics(settings: Settings, transport: Transport) -> list[str]:
    """As `create_topics`, on a transport that is open."""
    from prela_stream.transport.topics import topic_specs

    return await transport.create_topics(topic_specs(settings.topics))


@asynccontextmanager
async def ready_transport(settings: Settings) -> AsyncIterator[Transport]:
    """A transport whose topics exist. Topics of the local transport are created here."""
    async with open_transport(settings) as transport:
        if settings.transport == "local":
            await make_topics(settings, transport)
        yield transport
