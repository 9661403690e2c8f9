"""A model call that a framework records is recognised by the frames of the framework, across tasks as well."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from prela_stream.instrumentation.callers import claim, is_claimed, release


@pytest.fixture(autouse=True)
def claimed() -> Iterator[None]:
    claim("framework", ("framework.models",))
    yield
    release("framework")


def module(name: str) -> dict[str, Any]:
    """A module that calls what it is given."""
    namespace: dict[str, Any] = {"__name__": name}
    code = "def call(function): return function()\nasync def acall(function): return await function()"
    exec(code, namespace)
    return namespace


@pytest.mark.parametrize(
    ("name", "expected"),
    [("framework.models", True), ("framework.models.chat", True), ("framework.models_of_mine", False), ("app", False)],
)
async def test_a_frame_of_the_module_decides(name: str, expected: bool) -> None:
    async def called() -> bool:
        await asyncio.sleep(0)
        return is_claimed()

    assert module(name)["call"](is_claimed) is expected
    assert await asyncio.create_task(module(name)["acall"](called)) is expected
    assert not is_claimed()


def test_nothing_is_claimed_after_release() -> None:
    release("framework")
    assert module("framework.models")["call"](is_claimed) is False
