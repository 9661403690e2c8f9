"""docs/instrumentation.md: which libraries are traced by what, tested with which versions, and what their spans lack."""

import json
from pathlib import Path
from typing import Any, Final

from prela_stream.instrumentation.libraries import LIBRARIES, Library
from tools.docstrings import cell

RESULTS: Final = Path(__file__).resolve().parent.parent / "tests" / "frameworks" / "results.json"
"""Written by `make test-frameworks`."""
INTRODUCTION: Final = """\
# Instrumentation

`init()` traces the calls of the libraries that your program uses, with no change to its code. It imports none of them: a
library is patched when your program imports it. `auto_instrument()` returns the names of the libraries that are traced.

- The clients `anthropic` and `openai` are traced by instrumentors of this package ([getting-started.md](getting-started.md)).
- Frameworks and other clients are traced by instrumentors that OpenTelemetry, OpenInference or the library itself maintain.
  Their spans arrive through a bridge, with the exact number of children, and with the attributes that
  [importing.md](importing.md) lists.

If a library is installed without its instrumentor, `init()` logs one line with the package to install. `prela-stream doctor`
lists all of them. `prela.init(auto_instrument=["openai", "langchain"])` traces only what you name.
`prela.init(opentelemetry=False)` activates no instrumentor of OpenTelemetry.

## Libraries

`pip install 'prela-stream[NAME]'` installs the instrumentor of the library with that name. If the library traces itself,
the extra installs OpenTelemetry's SDK.
"""
NOTES: Final = """
One call gives one span. While the instrumentor of `openai` or `anthropic` is active, the bridge leaves out the spans of other
instrumentors of these clients. If a framework's spans contain its model calls, the client's instrumentor records nothing for
a call that the framework makes.

If OpenTelemetry is not set up in your program, a global TracerProvider is created when the first of these libraries is
imported. OpenTelemetry's own instrumentors record prompts only if two variables request it
(`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` and `OTEL_SEMCONV_STABILITY_OPT_IN`); they are set if your program has
no provider. If it has one with exporters, your own settings decide, because the prompts would reach these exporters too.

These instrumentors and the SDK of OpenTelemetry cost more CPU than this package: [benchmarks.md](benchmarks.md) has the
figures.

## Batches of `anthropic`

`messages.batches` and `beta.messages.batches` give spans of type CUSTOM, which record neither prompts nor answers:

- `create_batch` has the batch's id, its status and the number of its requests.
- `batch_results` lasts while the application reads `results()`. It has the number of results of each kind
  (`anthropic.message.batch.results.succeeded`, `errored`, `canceled`, `expired`) and the tokens of the succeeded ones
  (`anthropic.message.batch.usage.input_tokens` and others).

These spans have no `gen_ai.usage.*` attributes and no cost, because a batch's results can be read many times and by several
processes: each reading would be counted again. Sums over a trace therefore contain no tokens of batches. Other requests for
batches have no span.

## Events of a model call

The instrumentors of this package add two events to each model call: `llm.request` with the model, when the request is sent,
and `llm.response` with the model and the finish reasons, when the answer is complete. The messages are attributes of the
span. An attempt that is repeated adds the event `retry`.

## Why `openai` has an instrumentor here

Three maintained instrumentors and this one recorded 19 kinds of calls of openai 3.57 against a local server: sync, async,
streams, stream helpers, raw responses, the Responses API, embeddings, retries, errors and streams that end early. All four
have the true tokens wherever the server sent them. These kinds differ:

| call | OpenInference 0.1.66 | OpenTelemetry genai 1.3b0 | OpenLLMetry 0.62.4 | this package |
|---|---|---|---|---|
| 503 twice, then an answer | retries invisible | retries invisible | retries invisible | two `retry` events |
| `break`, then the stream is dropped | unset | ERROR | OK | SUCCESS, closed early |
| stream never read | unset | ERROR | OK | SUCCESS, closed early |
| task cancelled in a stream | ERROR | ERROR | OK | CANCELLED |
| the server truncates a stream | OK | unset, reason `error` | OK | ERROR `truncated_stream` |

Not traced: the Realtime API, the WebSocket of the Responses API, `responses.retrieve` (so the tokens of a response with
`background=True` are unknown), audio, moderations, Assistants and the sessions of hosted agents.

## Measured

`make test-frameworks` runs one small agent for each instrumentor and library against a local server with fixed answers. Each
answer has 97 input tokens (64 cached) and 25 output tokens (5 for reasoning). The spans arrive through the bridge, and the
exporter of OpenTelemetry sends them to `prela-stream otlp`, from whose log they are read. Both must be equal. `auto` is what
`init()` does.
"""


def text() -> str:
    """The page."""
    parts = [INTRODUCTION, "| library | instrumentor | tested | gaps |\n|---|---|---|---|"]
    parts += [_row(name, library) for name, library in LIBRARIES.items()]
    parts += [
        NOTES,
        "| library | instrumentor | requests | spans | model calls | input, output, cached, reasoning | by OTLP | lacks |",
    ]
    parts.append("|---|---|---|---|---|---|---|---|")
    if RESULTS.exists():
        parts += [_result(one) for one in json.loads(RESULTS.read_text(encoding="utf-8"))]
    return "\n".join(parts)


def _row(name: str, library: Library) -> str:
    by = (
        f"`{library.package}`"
        if library.package
        else f"traces itself ({library.distribution} {library.since} or newer)"
    )
    return f"| `{name}` | {by} | {cell(library.tested or 'not run')} | {cell(library.gaps or 'none found')} |"


def _result(one: dict[str, Any]) -> str:
    tokens = ", ".join(str(number) for number in one["tokens"])
    same = "equal" if one["equal"] else "not compared"
    lacks = ", ".join(one["lacks"]) or "nothing"
    return (
        f"| `{one['library']}` {one['version']} | {one['instrumentor']} | {one['requests']} | {one['spans']} | "
        f"{one['model_calls']} | {tokens} | {same} | {lacks} |"
    )
