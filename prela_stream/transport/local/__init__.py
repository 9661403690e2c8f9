"""The local transport: an append-only partitioned log in one SQLite file, shared by the processes of one machine."""

from prela_stream.transport.local.transport import LocalTransport

__all__ = ["LocalTransport"]
