"""Checks `extra`, `producer_extra` and `consumer_extra`: arguments of aiokafka's clients. Their values are never shown."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient

from prela_stream.errors import ConfigurationError
from prela_stream.text import visible
from prela_stream.transport.options import KafkaOptions
from prela_stream.validation import nearest

_LARGEST: Final = (1 << 31) - 1


def check_extra(options: KafkaOptions, reserved: frozenset[str]) -> None:
    """Raise ConfigurationError with every name that aiokafka does not have or that is reserved, and every wrong value."""
    tables = (
        ("extra", options.extra, AIOKafkaClient),
        ("producer_extra", options.producer_extra, AIOKafkaProducer),
        ("consumer_extra", options.consumer_extra, AIOKafkaConsumer),
    )
    mistakes = [one for name, table, client in tables for one in _mistakes(name, table, client, reserved)]
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))


def _mistakes(table: str, given: Mapping[str, Any], client: type, reserved: frozenset[str]) -> Iterator[str]:
    known = {name: one.default for name, one in inspect.signature(client).parameters.items()}
    for name, value in given.items():
        path = f"kafka.{table}.{visible(str(name), lines=False)}"
        if name in reserved:
            yield f"{path}: the transport depends on this argument or has another setting for it; remove it"
        elif name not in known or name in ("loop", "topics"):
            yield f"{path}: {client.__name__} of aiokafka has no such argument{nearest(name, known.keys() - reserved)}"
        elif expected := _expected(known[name], value):
            yield f"{path}: expected {expected}, got something else, which is not shown"


def _expected(default: Any, value: Any) -> str:
    """What the type of the default asks for; empty if the value fits."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST
        return "" if fits else f"a number from 0 to {_LARGEST:,}"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "a string"
    return "" if value is None or isinstance(value, str | int) else "a string or a number"
