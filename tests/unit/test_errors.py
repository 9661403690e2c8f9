"""Errors of task groups: one error without its group, if there are no others."""

import anyio
import pytest

from prela_stream.errors import FencedError, PrelaError, TransportError, ungrouped


async def fail(error: BaseException) -> None:
    raise error


async def test_the_one_error_of_nested_groups_is_raised_without_them() -> None:
    error = FencedError("taken over")

    async def work() -> None:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            inner.start_soon(fail, error)
            outer.start_soon(anyio.sleep_forever)

    with pytest.raises(FencedError) as caught, ungrouped(PrelaError):
        await work()
    assert caught.value is error
    assert caught.value.__suppress_context__


def test_the_first_of_several_is_the_one() -> None:
    first, second = TransportError("one"), PrelaError("two")
    with pytest.raises(TransportError) as caught, ungrouped(PrelaError):
        raise ExceptionGroup("all", [ExceptionGroup("some", [first]), second])
    assert caught.value is first


@pytest.mark.parametrize(
    "errors",
    [[PrelaError("inside"), ValueError("outside")], [ValueError("outside")], [PrelaError("inside"), SystemExit(3)]],
)
def test_what_else_went_wrong_is_not_lost(errors: list[BaseException]) -> None:
    group = BaseExceptionGroup("all", errors)
    with pytest.raises(BaseExceptionGroup) as caught, ungrouped(PrelaError):
        raise group
    assert caught.value is group


def test_an_error_outside_a_group_passes() -> None:
    error = ValueError("outside")
    with pytest.raises(ValueError, match="outside") as caught, ungrouped(PrelaError):
        raise error
    assert caught.value is error
