"""Settings of the sinks. Imports nothing heavy."""

import msgspec


class SqliteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the SQLite store."""

    path: str = ".prela/traces.db"
    """The SQLite file; its folder is made if it is missing."""
    retention_days: float | None = None
    """Traces that began longer ago are deleted; None keeps them all."""
