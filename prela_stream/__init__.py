"""Asyncio-native streaming telemetry for AI agents, with tail-based sampling that loses no trace."""

from prela_stream._version import __version__

__all__ = ["__version__"]
