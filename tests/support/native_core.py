"""The native core if it is built. Where `CI=true` it must be."""

import importlib
import os
from types import ModuleType

import pytest


def native_core() -> ModuleType:
    """The module; skips the test without it, and fails it where `CI=true`."""
    try:
        return importlib.import_module("prela_stream_native")
    except ImportError:
        reason = "the native core is not built: install cargo and run `make native`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
