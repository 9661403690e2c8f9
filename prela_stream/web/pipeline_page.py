"""The state of the pipeline: lag, watermark age, decisions by policy, ledger, workers and sinks."""

from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response

from prela_stream.errors import PrelaError
from prela_stream.web.api import Panel
from prela_stream.web.rendering import is_partial, page
from prela_stream.web.state import pages_of


async def pipeline(request: Request) -> Response:
    """`/pipeline`. It is shown without a store too, because then it is needed most."""
    pages = pages_of(request)
    found: dict[str, Any] = {"totals": {}, "policies": [], "failure": ""}
    panels: list[Panel] = []

    async def read_store() -> None:
        try:
            async with pages.reading() as reader:
                found["totals"] = await reader.totals()
                found["policies"] = await reader.decided_totals("policy")
        except PrelaError as error:
            found["failure"] = str(error)

    async def read_panels() -> None:
        if pages.pipeline is not None:
            panels.extend(await pages.pipeline.panels())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_store)
        tasks.start_soon(read_panels)
    template = "pipeline_body.html" if is_partial(request) else "pipeline.html"
    return page(request, template, panels=panels, **found)
