"""The ClickHouse store: a sink and the reader of what it wrote, for more data than one machine can hold (extra `clickhouse`)."""
