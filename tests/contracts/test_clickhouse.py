"""The sink and reader contracts on ClickHouse: `make test-clickhouse`. Needs chdb (800 MB) or `PRELA_TEST_CLICKHOUSE`."""

import pytest

from tests.contracts.clickhouse_row import ClickhouseRow


@pytest.mark.clickhouse
class TestClickhouse(ClickhouseRow):
    pass
