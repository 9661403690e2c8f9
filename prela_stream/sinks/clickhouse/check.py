"""What `doctor` checks of a ClickHouse store: the connection, the version, the tables and the privileges. Changes nothing."""

from contextlib import closing
from typing import Final

from prela_stream.errors import ConfigurationError, SinkError
from prela_stream.sinks.clickhouse.options import ClickhouseOptions
from prela_stream.sinks.clickhouse.schema import TABLES, Connection, address
from prela_stream.transport.findings import Finding, mistake, ok, wrong

_USED: Final = ("SELECT", "INSERT")
_CREATED: Final = ("CREATE DATABASE", "CREATE TABLE")


def check_server(check: str, options: ClickhouseOptions) -> Finding:
    """The finding `check`. Blocks; a server that does not answer is reported as a mistake."""
    with closing(Connection(options, create=False)) as connection:
        try:
            connection.open()
            return _found(check, options, connection)
        except (ConfigurationError, SinkError) as error:
            return mistake(check, str(error))


def _found(check: str, options: ClickhouseOptions, connection: Connection) -> Finding:
    ((version,),) = connection.query("SELECT version()", {})
    query = "SELECT name, engine FROM system.tables WHERE database = %(database)s"
    engines = dict(connection.query(query, {"database": options.database}))
    others = [
        f"{name} ({engines[name]})"
        for name in TABLES
        if name in engines and not engines[name].endswith("ReplacingMergeTree")
    ]
    if others:
        return wrong(
            check,
            expected=f"tables with the engine ReplacingMergeTree in the database {options.database}",
            came=", ".join(others),
            todo="set another database of the sink, or rename these tables",
        )
    missing = [name for name in TABLES if name not in engines]
    needed = (*_USED, *(_CREATED if missing else ()))
    lacking = [one for one in needed if not _is_granted(connection, one, options.database)]
    if lacking:
        return wrong(
            check,
            expected=f"the privileges {', '.join(needed)} on the database {options.database}",
            came=f"a user without {', '.join(lacking)}",
            todo=f"GRANT {', '.join(lacking)} ON {options.database}.* to the user in the url of the sink",
        )
    state = f"the sink creates {', '.join(missing)} with its first batch" if missing else "all tables exist"
    return ok(check, f"ClickHouse {version} at {address(options)}, database {options.database}: {state}")


def _is_granted(connection: Connection, privilege: str, database: str) -> bool:
    ((granted,),) = connection.query(f"CHECK GRANT {privilege} ON {database}.*", {})
    return bool(granted)
