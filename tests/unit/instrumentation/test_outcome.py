"""The status of a call for every combination of what may be known about it."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prela_stream.instrumentation.outcome import UNREADABLE, Facts, error_type, outcome_of
from prela_stream.instrumentation.provider import Failure
from prela_stream.model.span import SpanStatus


class EmptyError(Exception):
    """Without a text, as many timeouts are."""


ERRORS = [
    None,
    EmptyError(),
    ValueError("x"),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    SystemExit(0),
    SystemExit(1),
]
FACTS = st.builds(
    Facts,
    failure=st.none() | st.just(Failure("overloaded_error", "Overloaded")),
    error=st.sampled_from(ERRORS),
    last_event=st.sampled_from([None, "message_stop"]),
    is_complete=st.booleans(),
    was_read=st.booleans(),
    unread_parts=st.integers(0, 2),
    library_accepted=st.booleans(),
    is_blind=st.booleans(),
)


@given(FACTS)
def test_every_error_has_a_type_and_a_message(facts: Facts) -> None:
    outcome = outcome_of(facts)
    if outcome.status is SpanStatus.SUCCESS:
        assert outcome.failure is None
        assert facts.failure is None
        assert not isinstance(facts.error, Exception)
    else:
        assert outcome.failure is not None
        assert all(outcome.failure)
    assert outcome.status in (SpanStatus.SUCCESS, SpanStatus.ERROR, SpanStatus.CANCELLED)


@given(FACTS)
def test_an_answer_that_was_read_and_is_not_complete_is_no_success(facts: Facts) -> None:
    outcome = outcome_of(facts._replace(is_complete=False, was_read=True, is_blind=False, error=None))
    assert outcome.status is SpanStatus.ERROR


CANCELLED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"is_complete": True}, SpanStatus.SUCCESS),
        ({"is_complete": True, "unread_parts": 1}, SpanStatus.SUCCESS),
        ({"is_complete": True, "unread_parts": 1, "library_accepted": False}, SpanStatus.ERROR),
        ({"is_complete": True, "error": ValueError("x")}, SpanStatus.ERROR),
        ({"is_complete": True, "error": CANCELLED, "last_event": "message_stop"}, SpanStatus.SUCCESS),
        ({"is_complete": True, "error": CANCELLED}, SpanStatus.CANCELLED),
        ({"error": CANCELLED}, SpanStatus.CANCELLED),
        ({"error": SystemExit(0), "was_read": False}, SpanStatus.SUCCESS),
        ({"error": SystemExit(3), "was_read": False}, SpanStatus.CANCELLED),
        ({"was_read": False}, SpanStatus.SUCCESS),
        ({"is_blind": True}, SpanStatus.SUCCESS),
        ({"is_blind": True, "error": ValueError("x")}, SpanStatus.ERROR),
    ],
)
def test_the_status(facts: dict[str, Any], status: SpanStatus) -> None:
    assert outcome_of(Facts(**facts)).status is status


def test_the_kinds_of_what_was_not_read() -> None:
    cut = outcome_of(Facts(last_event="message_stop")).failure
    assert cut is not None
    assert cut.kind == "truncated_stream"
    assert "message_stop" in cut.message
    assert outcome_of(Facts(last_event="message_stop", unread_parts=1)).failure == UNREADABLE
    assert outcome_of(Facts()).failure == UNREADABLE
    assert outcome_of(Facts(was_read=False)).closed_early
    assert not outcome_of(Facts(was_read=False, is_complete=True)).closed_early


def test_the_type_of_an_error() -> None:
    class StatusError(Exception):
        status_code = 529

    class APIConnectionError(Exception):
        pass

    class APITimeoutError(APIConnectionError):
        pass

    typed = StatusError()
    typed.type = "overloaded_error"  # type: ignore[attr-defined]  # as the client sets it
    errors = [typed, StatusError(), APIConnectionError(), APITimeoutError(), ValueError()]
    kinds = ["overloaded_error", "529", "connection_error", "client_timeout_error", "client_error"]
    assert [error_type(error) for error in errors] == kinds
