"""The demo: agents on a bundled model server, the whole pipeline behind them, as separate processes."""
