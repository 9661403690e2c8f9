"""Fills a SQLite store with traces of every kind."""

import msgspec

from prela_stream.model.span import SpanStatus
from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.sink import SqliteSink
from tests.support.kept import SECOND, batch, decision, fragment, span


async def fill(options: SqliteOptions, count: int = 60) -> None:
    sink = SqliteSink(options)
    fragments = []
    for number in range(1, count + 1):
        summary = msgspec.structs.replace(
            decision(number).summary,
            root_name=f"agent {number % 3}",
            service=f"service {number % 4}",
            cost_usd=None if number % 5 == 0 else (number * 37 % 100) / 10,
            input_tokens=number * 53 % 97,
        )
        about = decision(number, policy=f"policy {number % 2}", summary=summary)
        status = SpanStatus.ERROR if number % 7 == 0 else SpanStatus.SUCCESS
        spans = [
            span(number, index, status=status, duration_ns=(number * 31 % 50) * SECOND) for index in range(number % 5)
        ]
        fragments.append(fragment(about, spans))
    await sink.write(batch(*fragments))
    await sink.aclose()
