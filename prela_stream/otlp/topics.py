"""The topics that a receiver of OTLP writes to: they have to exist and to match the settings."""

from prela_stream.errors import UnknownTopicError
from prela_stream.transport.base import Transport
from prela_stream.transport.options import TopicOptions
from prela_stream.transport.topics import TopicMismatchError, check_topics


async def require_topics(transport: Transport, topics: TopicOptions) -> None:
    """Check `spans` and `dlq`.

    Raises:
        TransportError: They cannot be read now.
        UnknownTopicError: One of them does not exist.
        TopicMismatchError: One of them does not match the settings.
    """
    names = (topics.spans, topics.dlq)
    existing = await transport.topics(names)
    if missing := [name for name in names if name not in existing]:
        msg = f"OTLP needs the topics {', '.join(missing)}, which do not exist: run `prela-stream topics create`"
        raise UnknownTopicError(msg)
    heads = tuple(f"topic {name}:" for name in names)
    if mistakes := [line for line in check_topics(topics, existing) if line.startswith(heads)]:
        raise TopicMismatchError("\n".join(mistakes))
