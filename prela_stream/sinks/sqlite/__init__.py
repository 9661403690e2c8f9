"""The SQLite store: a sink and the reader of what it wrote."""
