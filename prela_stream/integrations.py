"""What joins other libraries: ASGI applications, httpx clients, Kafka messages, process pools and OpenTelemetry.

Nothing here imports the library that it joins.
"""

from prela_stream.instrumentation.http.asgi import TraceMiddleware
from prela_stream.instrumentation.http.httpx import propagate
from prela_stream.instrumentation.otel import join_opentelemetry, leave_opentelemetry
from prela_stream.instrumentation.otel_bridge import unbridge_opentelemetry
from prela_stream.propagation.processes import ContextProcessPoolExecutor
from prela_stream.propagation.w3c import inject_asgi, inject_kafka

__all__ = [
    "ContextProcessPoolExecutor",
    "TraceMiddleware",
    "inject_asgi",
    "inject_kafka",
    "join_opentelemetry",
    "leave_opentelemetry",
    "propagate",
    "unbridge_opentelemetry",
]
