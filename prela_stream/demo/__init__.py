"""The demo: agents on a bundled model server with the whole pipeline behind them, each part a process of its own."""

from prela_stream.demo.children import DemoError
from prela_stream.demo.show import DemoResult, Progress, run

__all__ = ["DemoError", "DemoResult", "Progress", "run"]
