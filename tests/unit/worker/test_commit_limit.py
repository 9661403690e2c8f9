"""The limit of a commit counts from the last answer of the log, and `hurry` ends it whatever the log answers."""

from collections.abc import Callable

import anyio

from prela_stream.transport.base import CommitOutcome, Committed
from prela_stream.worker.commit_limit import CommitLimit

NEVER = 3_600.0


class _Writer:
    """A writer whose commit ends after some answers, each of which takes longer than half of the limit."""

    on_answer: Callable[[], None] | None = None
    committed: Committed | None = None

    async def commit(self, *_: object) -> CommitOutcome:
        return CommitOutcome.COMMITTED

    async def aclose(self) -> None: ...


async def _deadlines(limit: CommitLimit, writer: _Writer, answers: int, step_s: float) -> list[float]:
    """The time that is left after each answer."""
    left: list[float] = []
    with limit.applies_to(writer):  # type: ignore[arg-type] # what it uses of a Writer
        for _ in range(answers):
            await anyio.sleep(step_s)
            assert writer.on_answer is not None
            writer.on_answer()
            left.append(anyio.current_effective_deadline() - anyio.current_time())
    return left


async def test_each_answer_gives_the_commit_its_whole_time_again() -> None:
    left = await _deadlines(CommitLimit(NEVER), writer := _Writer(), answers=3, step_s=0.01)
    assert len(left) == 3
    assert all(NEVER - 1 < one <= NEVER for one in left)
    assert writer.on_answer is None, "a later answer concerns another commit"


async def test_without_an_answer_it_ends() -> None:
    limit = CommitLimit(0.01)
    ended = True
    with anyio.fail_after(60.0), limit.applies_to(_Writer()):  # type: ignore[arg-type] # as above
        await anyio.sleep_forever()
        ended = False
    assert ended


async def test_a_stop_is_not_delayed_by_answers() -> None:
    limit = CommitLimit(NEVER)
    limit.hurry(10.0)
    assert all(one <= 10.0 for one in await _deadlines(limit, _Writer(), answers=3, step_s=0.01))


async def test_a_cancelled_caller_waits_for_the_commit() -> None:
    limit = CommitLimit(NEVER)
    finished = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        with limit.applies_to(_Writer()):  # type: ignore[arg-type] # as above
            await anyio.sleep(0.01)
            finished = True
    assert finished
