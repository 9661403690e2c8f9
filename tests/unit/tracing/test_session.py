"""Session and user ids: on every span of a block, in any task or thread, and on no other."""

import asyncio
import threading

import pytest

from prela_stream.propagation.w3c import extract, inject
from prela_stream.testing import CapturedSpans, capture_spans
from prela_stream.tracing.carrying import wrap
from prela_stream.tracing.context import attach
from prela_stream.tracing.sampler import AlwaysOffSampler
from prela_stream.tracing.session import session
from prela_stream.tracing.tracer import get_current_span, get_tracer

tracer = get_tracer()
SESSION, USER = "gen_ai.conversation.id", "user.id"


def ids(captured: CapturedSpans) -> dict[str, tuple[str | None, str | None]]:
    """Session and user of each span by name."""
    return {span.name: (span.attributes.get(SESSION), span.attributes.get(USER)) for span in captured.spans}


def test_spans_of_a_block_have_the_ids_and_later_ones_do_not() -> None:
    with capture_spans() as captured:
        with session("s1", user_id="u1"), tracer.span("root"), tracer.span("child"):
            pass
        with tracer.span("after"):
            pass
    assert ids(captured) == {"root": ("s1", "u1"), "child": ("s1", "u1"), "after": (None, None)}


def test_a_block_inside_of_a_span_leaves_that_span_alone_and_current() -> None:
    with capture_spans() as captured, tracer.span("outer") as outer:
        with session("s1"):
            assert get_current_span() is outer
            with tracer.span("inside"):
                pass
        with tracer.span("beside"):
            pass
    assert ids(captured) == {"inside": ("s1", None), "beside": (None, None), "outer": (None, None)}
    assert {span.parent_span_id for span in captured.spans if span.name != "outer"} == {outer.span_id}


def test_blocks_nest_and_attributes_of_the_span_have_priority() -> None:
    with capture_spans() as captured, session("s1", user_id="u1", attributes={"tenant": 1, "x": 1}):
        with session("s2", attributes={"x": 2}), tracer.span("inner"):
            pass
        with tracer.span("own", attributes={USER: "me"}) as span:
            span.set_attribute(SESSION, "mine")
    assert ids(captured) == {"inner": ("s2", "u1"), "own": ("mine", "me")}
    assert captured.find("inner").attributes == {SESSION: "s2", USER: "u1", "tenant": 1, "x": 2}


async def test_each_task_has_its_own() -> None:
    reached = asyncio.Barrier(20)

    async def request(number: int) -> None:
        with session(f"s{number}"):
            await reached.wait()
            with tracer.span(f"r{number}"):
                await asyncio.sleep(0)

    with capture_spans() as captured:
        await asyncio.gather(*(request(number) for number in range(20)))
    assert ids(captured) == {f"r{number}": (f"s{number}", None) for number in range(20)}


def test_a_wrapped_function_takes_them_to_its_thread_and_another_has_none() -> None:
    def work(name: str) -> None:
        with tracer.span(name):
            pass

    with capture_spans() as captured:
        with session("s1"):
            threads = [
                threading.Thread(target=wrap(work), args=("wrapped",)),
                threading.Thread(target=work, args=("bare",)),
            ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ids(captured) == {"wrapped": ("s1", None), "bare": (None, None)}


def test_ids_are_propagated_only_on_request() -> None:
    with capture_spans(), session("s1", user_id="u1"), tracer.span("client"):
        assert "baggage" not in inject({})
        with session(propagate=True):
            assert "baggage" not in inject({}), "propagate applies to the ids of its block only"


def test_every_span_of_the_other_process_has_the_ids_of_the_baggage() -> None:
    with capture_spans(), session("s 1", user_id="ü", propagate=True), tracer.span("client"):
        headers = inject({})
    with capture_spans() as captured:
        context = extract(headers)
        assert context is not None
        with attach(context):
            with tracer.span("server"), tracer.span("inside"):
                forwarded = inject({})
            with tracer.span("second"):
                pass
        with tracer.span("other"):
            pass
    assert ids(captured) == {
        "server": ("s 1", "ü"),
        "inside": ("s 1", "ü"),
        "second": ("s 1", "ü"),
        "other": (None, None),
    }
    assert forwarded["baggage"] == headers["baggage"]
    assert captured.find("inside").parent_span_id == captured.find("server").span_id


@pytest.mark.parametrize("wrong", [5, object(), b"x", ["s"]])
def test_an_id_of_any_kind_is_text(wrong: object) -> None:
    with capture_spans() as captured, session(wrong, attributes=wrong), tracer.span("x"):  # type: ignore[arg-type]
        pass
    assert isinstance(captured.find("x").attributes[SESSION], str)


def test_unsampled_traces_have_none_of_it() -> None:
    headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00", "baggage": "session.id=s"}
    with capture_spans(AlwaysOffSampler()) as captured, session("s1"):
        with tracer.span("root"), tracer.span("child"):
            pass
        with attach(extract(headers)), tracer.span("remote"):
            pass
    assert captured.items == []
