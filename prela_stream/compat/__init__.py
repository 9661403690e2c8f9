"""The rest of the API of the `prela` SDK, for code that migrates: docs/from-prela.md lists every name."""

from prela_stream.compat.prela import AncestorOptions
from prela_stream.tracing.exporters import BaseExporter, ExportResult
from prela_stream.tracing.tracer import set_global_tracer

__all__ = ["AncestorOptions", "BaseExporter", "ExportResult", "set_global_tracer"]
