"""The row of the ClickHouse store: on the server that `PRELA_TEST_CLICKHOUSE` names, or in this process on chdb."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from prela_stream.sinks.clickhouse.options import ClickhouseOptions
from prela_stream.sinks.clickhouse.schema import Connection
from tests.contracts.reader_contract import ReaderContract

_SERVER: Final = os.environ.get("PRELA_TEST_CLICKHOUSE")
_FOLDER: Final = Path(tempfile.gettempdir()) / f"prela-chdb-{os.getpid()}"
"""chdb has one folder in a process, so each test has a database."""
_numbers: Final = itertools.count(1)


class ClickhouseRow(ReaderContract):
    """Each test has a database of this process."""

    type = "clickhouse"

    def options(self, folder: Path) -> dict[str, Any]:
        """A server or chdb, and a new database."""
        database = f"prela_test_{os.getpid()}_{next(_numbers)}"
        return {"url": _SERVER or f"chdb://{_FOLDER}", "database": database, "retention_days": 36_500}

    @contextmanager
    def fault(self) -> Iterator[None]:
        """A view has the name of a table, so that inserts fail."""
        options: ClickhouseOptions = self.settings.options
        with closing(Connection(options, create=False)) as connection:
            connection.open()
            connection.command(f"CREATE DATABASE {options.database}")
            connection.command(f"CREATE VIEW {options.database}.traces AS SELECT 1 AS one")
        yield
        with closing(Connection(options, create=False)) as connection:
            connection.open()
            connection.command(f"DROP DATABASE {options.database}")
