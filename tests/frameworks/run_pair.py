"""Runs one program below one instrumentor and prints what arrives: `python -m tests.frameworks.run_pair LIBRARY PATH`.

PATH is the class of an instrumentor (`module:Class`), `native` for a library that traces itself, or `auto` for what
`auto_instrument()` does. The result is one JSON object, with each span as the bridge recorded it, and the ids of those that
OpenTelemetry's exporter sent to the receiver at `OTLP_URL`.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module, metadata

# before any library reads them
os.environ.setdefault("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
os.environ.setdefault("ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE", "content")
os.environ.setdefault("NO_PROXY", "127.0.0.1")
if sys.argv[1:3] and sys.argv[2] not in ("native", "auto"):
    os.environ["ANTHROPIC_OPEN_TELEMETRY"] = "false"  # the client traces itself too, if it is not asked not to

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from prela_stream import bridge_opentelemetry, get_tracer
from prela_stream.instrumentation.registry import auto_instrument
from prela_stream.testing import capture_spans
from tests.frameworks.model_api import serving
from tests.frameworks.programs import PROGRAMS
from tests.frameworks.shown import shown


class Exporter(OTLPSpanExporter):
    """Sends spans, and keeps the ids of those that the receiver acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(endpoint=url)
        self.sent: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += [f"{span.context.span_id:016x}" for span in spans if span.context is not None]
        return result


def main(library: str, path: str) -> None:
    """Run the pair and print the result."""
    os.chdir(tempfile.mkdtemp())  # some libraries write files
    exporter = Exporter(os.environ["OTLP_URL"])
    with serving() as (url, answered), capture_spans() as captured:
        traced: list[str] = []
        if path == "auto":
            traced = auto_instrument()
        else:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
            bridge_opentelemetry()
            if path != "native":
                module, _, attribute = path.partition(":")
                getattr(import_module(module), attribute)().instrument(tracer_provider=provider)
        with get_tracer().agent("request"):
            PROGRAMS[library](url)
        spans = [shown(span) for span in captured.spans]
    sys.stdout.write(
        json.dumps(
            {
                "answered": answered,
                "traced": traced,
                "bridge": spans,
                "sent": exporter.sent,
                "versions": {name: version for name in sys.argv[3:] if (version := installed(name))},
            }
        )
        + "\n"
    )


def installed(name: str) -> str:
    """The version of a distribution; empty if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:3])
