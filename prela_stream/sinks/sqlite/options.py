"""Settings of the sinks. Imports nothing heavy."""

from typing import Annotated

import msgspec

from prela_stream.validation import bounded


class SqliteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the SQLite store."""

    path: str = ".prela/traces.db"
    """The SQLite file; its folder is made if it is missing."""
    retention_days: Annotated[float, bounded(0.001, 36_500)] | None = None
    """Traces that began longer ago are deleted; None keeps them all."""
