"""Settings of the ClickHouse store. Imports nothing heavy."""

import re
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from prela_stream.addresses import is_url
from prela_stream.text import show
from prela_stream.validation import bounded

_DATABASE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class ClickhouseOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ClickHouse store."""

    url: str = "http://127.0.0.1:8123"
    """The HTTP interface, with the user if it is not `default`. `chdb:///folder` is an embedded ClickHouse (package chdb)."""
    password_variable: str = "PRELA_CLICKHOUSE_PASSWORD"  # noqa: S105 - the name of a variable
    """The environment variable with the password."""
    database: str = "prela"
    """Created if it is missing."""
    retention_days: Annotated[int, bounded(1, 36_500)] = 30
    """ClickHouse deletes traces that were decided longer ago. Applies to tables that are created from then on."""
    query_s: Annotated[float, bounded(0.01, 3_600)] = 10.0
    """A query of a reader that takes longer is stopped."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with these options: the key, and the mistake."""
        if not (is_url(self.url) or (self.url.startswith("chdb:///") and len(self.url) > len("chdb:///"))):
            yield "url", f"expected http://HOST:8123, https://HOST:8443 or chdb:///FOLDER, got {show(self.url)}"
        elif "?" in self.url:
            yield "url", f"a query has no effect, and a password belongs into the variable {self.password_variable}"
        if not _DATABASE.fullmatch(self.database):
            yield "database", "expected letters, digits and '_', the first of them no digit"
