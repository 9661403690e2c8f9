"""The messages of OTLP traces as this package parses them: the outer ones, with everything inside left as bytes.

On the wire a string, bytes and a message are the same: a length and that many bytes. So a field of OTLP may be declared as
bytes. The parser of `protobuf` then builds no object for each attribute, and reading the bytes in Python is several times as fast
as reading the objects. It also keeps a mistake inside of a span from costing the request.
Field numbers: opentelemetry-proto 1.9.0, `trace/v1/trace.proto`, `common/v1/common.proto`, `resource/v1/resource.proto`.
"""

from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_Message: TypeAlias = descriptor_pb2.DescriptorProto
_PACKAGE: Final = "prela_stream.otlp"
_BYTES: Final = _Field.TYPE_BYTES
_INT32: Final = _Field.TYPE_INT32  # also of an enumeration, whose unknown numbers then stay numbers
_FIXED32: Final = _Field.TYPE_FIXED32
_FIXED64: Final = _Field.TYPE_FIXED64


def _one(message: _Message, number: int, name: str, kind: Any = _BYTES) -> None:
    message.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)


def _many(message: _Message, number: int, name: str, inner: str | None = None) -> None:
    if inner is None:
        message.field.add(name=name, number=number, type=_BYTES, label=_Field.LABEL_REPEATED)
    else:
        kind, type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{inner}"
        message.field.add(name=name, number=number, type=kind, label=_Field.LABEL_REPEATED, type_name=type_name)


def _add_span(file: descriptor_pb2.FileDescriptorProto) -> None:
    span = file.message_type.add(name="Span")
    for number, name in enumerate(("trace_id", "span_id", "trace_state", "parent_span_id", "name"), 1):
        _one(span, number, name)
    _one(span, 6, "kind", _INT32)
    _one(span, 7, "start_time_unix_nano", _FIXED64)
    _one(span, 8, "end_time_unix_nano", _FIXED64)
    _many(span, 9, "attributes")
    _many(span, 11, "events")
    _many(span, 13, "links")
    _one(span, 15, "status")
    _one(span, 16, "flags", _FIXED32)


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="prela_stream/otlp.proto", package=_PACKAGE, syntax="proto2")
    _add_span(file)
    event = file.message_type.add(name="Event")
    _one(event, 1, "time_unix_nano", _FIXED64)
    _one(event, 2, "name")
    _many(event, 3, "attributes")
    link = file.message_type.add(name="Link")
    _one(link, 1, "trace_id")
    _one(link, 2, "span_id")
    _many(link, 4, "attributes")
    status = file.message_type.add(name="Status")
    _one(status, 2, "message")
    _one(status, 3, "code", _INT32)
    scope = file.message_type.add(name="Scope")
    _one(scope, 1, "name")
    _one(scope, 2, "version")
    _many(file.message_type.add(name="Resource"), 1, "attributes")
    for prefix, inner in (("", "Span"), ("Large", None)):
        scope_spans = file.message_type.add(name=f"{prefix}ScopeSpans")
        _one(scope_spans, 1, "scope")
        _many(scope_spans, 2, "spans", inner)
        resource_spans = file.message_type.add(name=f"{prefix}ResourceSpans")
        _one(resource_spans, 1, "resource")
        _many(resource_spans, 2, "scope_spans", f"{prefix}ScopeSpans")
        _many(resource_spans, 1000, "instrumentation_library_spans", f"{prefix}ScopeSpans")  # before OTLP 0.15
        _many(file.message_type.add(name=f"{prefix}Request"), 1, "resource_spans", f"{prefix}ResourceSpans")
    rpc_status = file.message_type.add(name="RpcStatus")
    _one(rpc_status, 1, "code", _INT32)
    _one(rpc_status, 2, "message", _Field.TYPE_STRING)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


_POOL: Final = _pool()
Request: Final[Any] = _class("Request")
"""`ExportTraceServiceRequest`, and `TracesData`, which has the same form."""
LargeRequest: Final[Any] = _class("LargeRequest")
"""The same with each span as bytes: together, the objects of a large request would need many times its size."""
Span: Final[Any] = _class("Span")
Event: Final[Any] = _class("Event")
Link: Final[Any] = _class("Link")
Status: Final[Any] = _class("Status")
Scope: Final[Any] = _class("Scope")
Resource: Final[Any] = _class("Resource")
RpcStatus: Final[Any] = _class("RpcStatus")
"""`google.rpc.Status` without details."""
