"""The demo: agents on a bundled model server, with the whole pipeline. Each part is a process."""

from prela_stream.demo.children import DemoError
from prela_stream.demo.show import DemoResult, Progress, run

__all__ = ["DemoError", "DemoResult", "Progress", "run"]
