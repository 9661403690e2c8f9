"""The worker: a consumer group on `spans` that decides whole traces and writes what it decided, atomically."""
