"""Runs one program below one instrumentor and prints what arrives: `python -m tests.frameworks.run_pair LIBRARY PATH`.

PATH is the class of an instrumentor (`module:Class`), `native` for a library that traces itself, or `auto` for what
`auto_instrument()` does. The result is one JSON object, with each span as the bridge recorded it and as it is read from OTLP.
"""

import json
import os
import sys
import tempfile
from importlib import import_module, metadata
from typing import Any

# before any library reads them
os.environ.setdefault("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
os.environ.setdefault("ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE", "content")
os.environ.setdefault("NO_PROXY", "127.0.0.1")
if sys.argv[1:3] and sys.argv[2] not in ("native", "auto"):
    os.environ["ANTHROPIC_OPEN_TELEMETRY"] = "false"  # the client traces itself too, if it is not asked not to

from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from prela_stream import bridge_opentelemetry, get_tracer
from prela_stream.instrumentation.registry import auto_instrument
from prela_stream.model.span import SpanData
from prela_stream.otel.files import otlp_json
from prela_stream.otel.items import span_data_of
from prela_stream.otel.spans import ForeignSpan
from prela_stream.testing import capture_spans
from tests.frameworks.model_api import serving
from tests.frameworks.programs import PROGRAMS


def main(library: str, path: str) -> None:
    """Run the pair and print the result."""
    os.chdir(tempfile.mkdtemp())  # some libraries write files
    exported = InMemorySpanExporter()
    with serving() as (url, answered), capture_spans() as captured:
        traced: list[str] = []
        if path == "auto":
            traced = auto_instrument()
        else:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exported))
            trace.set_tracer_provider(provider)
            bridge_opentelemetry()
            if path != "native":
                module, _, attribute = path.partition(":")
                getattr(import_module(module), attribute)().instrument(tracer_provider=provider)
        with get_tracer().agent("request"):
            PROGRAMS[library](url)
        spans = [shown(span) for span in captured.spans]
    request = encode_spans(exported.get_finished_spans())
    read = [found for found in otlp_json.read(MessageToDict(request)) if isinstance(found, ForeignSpan)]
    sys.stdout.write(
        json.dumps(
            {
                "answered": answered,
                "traced": traced,
                "bridge": spans,
                "otlp": [shown(span_data_of(found)) for found in read],
                "versions": {name: version for name in sys.argv[3:] if (version := installed(name))},
            }
        )
        + "\n"
    )


def shown(span: SpanData) -> dict[str, Any]:
    """What has to be the same by either way."""
    return {
        "id": span.span_id,
        "parent": span.parent_span_id,
        "name": span.name,
        "type": span.span_type.name,
        "status": span.status.name,
        "attributes": span.attributes,
        "events": [event.name for event in span.events],
    }


def installed(name: str) -> str:
    """The version of a distribution; empty if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main(*sys.argv[1:3])
