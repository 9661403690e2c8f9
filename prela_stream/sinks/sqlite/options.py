"""Settings of the SQLite store. Imports nothing heavy."""

from typing import Annotated

import msgspec

from prela_stream.validation import bounded


class SqliteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the SQLite store."""

    path: str = ".prela/traces.db"
    """The SQLite file; its folder is made if it is missing."""
    retention_days: Annotated[float, bounded(0, 36_500)] = 7.0
    """Traces that were decided longer ago are deleted; 0 keeps them."""
    retention_gb: Annotated[float, bounded(0, 1_000_000, "GB")] = 5.0
    """If the store holds more than this many gigabytes (10**9 bytes), its oldest traces are deleted; 0 sets no limit."""
    query_s: Annotated[float, bounded(0.01, 3_600)] = 10.0
    """A query of a reader that takes longer is stopped."""
