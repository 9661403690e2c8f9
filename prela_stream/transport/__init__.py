"""How records move: one set of Protocols (`base`), a local implementation on SQLite, and Kafka's."""
