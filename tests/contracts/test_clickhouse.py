"""The sink and reader contracts on ClickHouse: `make test-clickhouse`. Needs chdb (800 MB) or `PRELA_TEST_CLICKHOUSE`."""

import pytest

from prela_stream.sinks.clickhouse.check import check_server
from prela_stream.sinks.clickhouse.options import ClickhouseOptions
from tests.contracts.clickhouse_row import ClickhouseRow
from tests.support.kept import batch, whole


@pytest.mark.clickhouse
class TestClickhouse(ClickhouseRow):
    async def test_doctor_reports_the_version_and_the_tables(self) -> None:
        options: ClickhouseOptions = self.settings.options
        empty = check_server("sink", options)
        assert (empty.state, "the sink creates traces, spans" in empty.text) == ("ok", True), empty
        async with self.sink() as sink:
            await sink.write(batch(whole(1)))
        full = check_server("sink", options)
        assert (full.state, "all tables exist" in full.text) == ("ok", True), full

    async def test_doctor_names_a_table_of_another_program(self) -> None:
        with self.fault():
            found = check_server("sink", self.settings.options)
        assert (found.state, found.came) == ("wrong", "traces (View)")
