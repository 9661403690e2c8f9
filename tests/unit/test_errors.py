"""Errors of task groups, the log of the package, and calls of the application's code."""

import logging
import threading

import anyio
import pytest

from prela_stream.errors import FencedError, HostCall, PrelaError, TransportError, logger, ungrouped


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


def test_the_log_is_silent_inside_its_own_calls_and_names_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    class Nested(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.warning("nested")

    handler = Nested()
    logging.getLogger("prela_stream").addHandler(handler)
    try:
        logger.warning("outer %d", 1)
        logger.warning("again")
    finally:
        logging.getLogger("prela_stream").removeHandler(handler)
    assert [(record.getMessage(), record.filename) for record in caplog.records] == [
        ("outer 1", "test_errors.py"),
        ("again", "test_errors.py"),
    ]


def test_a_host_call_is_nested_in_its_thread_only() -> None:
    call = HostCall()
    found: list[bool] = []

    def enter() -> None:
        with call as nested:
            found.append(nested)

    with call as nested:
        found.append(nested)
        enter()
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    enter()
    assert found == [False, True, False, False]
