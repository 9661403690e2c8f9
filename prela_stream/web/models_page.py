"""Models and tools: calls, latency, errors, tokens and cost. Exact where decisions contain them, else estimated by weight."""

import time

from starlette.requests import Request
from starlette.responses import Response

from prela_stream.web.parameters import read_parameters
from prela_stream.web.rendering import page
from prela_stream.web.state import pages_of

_PERIODS = (("15m", "15 min"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days"), ("", "all"))


async def models(request: Request) -> Response:
    """`/models`."""
    wanted = read_parameters(request.query_params.multi_items(), time.time_ns())
    since, until = wanted.query.since_ns, wanted.query.until_ns
    async with pages_of(request).reading() as reader:
        by_model = await reader.statistics(wanted.query, "model")
        by_tool = await reader.statistics(wanted.query, "tool")
        services = await reader.decided_totals("service", since_ns=since, until_ns=until)
    return page(
        request,
        "models.html",
        wanted=wanted,
        values=wanted.values,
        periods=_PERIODS,
        by_model=by_model,
        by_tool=by_tool,
        services=services,
    )
