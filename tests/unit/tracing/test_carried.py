"""What programs keep on their objects survives copy, deepcopy, pickle and cloudpickle."""

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import prela_stream as prela
from prela_stream.model.span import COUNTED, REMOTE_PARENT
from prela_stream.privacy.rules import Privacy
from prela_stream.sampling.evaluator import Evaluator
from prela_stream.sampling.policyset import default_policies
from prela_stream.testing import CapturedSpans, assert_tree, capture_spans
from prela_stream.tracing.sampler import HeadDecision
from prela_stream.tracing.tracer import Tracer, get_tracer

tracer = get_tracer()


def pickled(value: Any, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


def cloudpickled(value: Any) -> Any:
    dumps: Any = cloudpickle.dumps
    return pickle.loads(dumps(value))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {n}": partial(pickled, protocol=n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "cloudpickle": cloudpickled,
}
by_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)


@pytest.fixture
def captured() -> Iterator[CapturedSpans]:
    with capture_spans() as spans:
        yield spans


@dataclasses.dataclass
class Agent:
    """Keeps what programs keep."""

    tracer: Tracer
    start: Any


@by_copy
@pytest.mark.parametrize("made", [tracer, Tracer("named", sampler=prela.ProbabilitySampler(0.5))])
def test_the_copy_of_a_tracer_is_the_same_tracer(made: Tracer, duplicate: Callable[[Any], Any]) -> None:
    assert duplicate(made) is made
    agent = duplicate(Agent(made, made.tool))
    assert agent.tracer is made
    assert agent.start.__self__ is made
    assert dataclasses.asdict(Agent(made, None))["tracer"] is made


@by_copy
def test_a_copied_reservation_is_used_once(duplicate: Callable[[Any], Any], captured: CapturedSpans) -> None:
    with tracer.span("parent") as parent:
        deferred = tracer.defer()
    again = duplicate(deferred)
    again.span("work").end()
    found = captured.find("work")
    assert (found.trace_id, found.parent_span_id, found.flags) == (parent.trace_id, parent.span_id, COUNTED)
    assert captured.find("parent").child_count == 1
    assert (again is deferred) is (duplicate in (copy.copy, copy.deepcopy))


def test_a_tracer_that_is_not_held_any_more_is_restored() -> None:
    data = pickle.dumps(Tracer("named", exporter=CapturedSpans(), sampler=prela.ProbabilitySampler(0.5)))
    restored = pickle.loads(data)
    assert (restored.service_name, restored.sampler.rate, restored.recorder) == ("named", 0.5, None)
    assert pickle.loads(data) is restored


@by_copy
def test_a_copied_context_has_the_same_ids(duplicate: Callable[[Any], Any], captured: CapturedSpans) -> None:
    context = prela.TraceContext("request 7", sampled=None, baggage={"user": "7"}, span_id="ab" * 8)
    again = duplicate(context)
    assert (again.trace_id, again.span_id, again.sampled) == (context.trace_id, context.span_id, None)
    assert again.baggage == {"user": "7"}
    again.set_baggage("user", "8")
    assert duplicate is copy.copy or context.baggage == {"user": "7"}
    with prela.attach(again), tracer.span("below"):
        pass
    assert (captured.find("below").trace_id, captured.find("below").parent_span_id) == (context.trace_id, "ab" * 8)


@by_copy
@pytest.mark.parametrize("of", [lambda span: span, lambda span: span.context], ids=["span", "context"])
def test_a_copied_span_is_the_parent_of_new_spans(
    of: Callable[[Any], Any], duplicate: Callable[[Any], Any], captured: CapturedSpans
) -> None:
    with tracer.span("root") as root:
        root.context.set_baggage("user", "7")
        given = duplicate(of(root))
        with prela.attach(given), tracer.span("below"):
            assert prela.inject({})["traceparent"].split("-")[1] == root.trace_id
        assert duplicate(given) is not None
    below = captured.find("below")
    assert (below.trace_id, below.parent_span_id) == (root.trace_id, root.span_id)
    is_copy = duplicate in (copy.copy, copy.deepcopy)
    assert (given is of(root) or given == of(root)) is is_copy
    assert captured.find("root").child_count == (1 if is_copy else 0)
    assert below.flags == (1 if is_copy else REMOTE_PARENT)


def test_an_unpickled_span_changes_nothing(captured: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRELA_STRICT", raising=False)
    with tracer.span("root", attributes={"prompt": "secret"}) as root:
        data = pickle.dumps(root)
        again = pickle.loads(data)
        again.set_attribute("a", 1)
        again.end()
        with again:
            pass
    assert b"secret" not in data
    assert (again.name, again.trace_id, again.span_id, again.is_ended) == ("root", root.trace_id, root.span_id, True)
    assert captured.find("root").attributes == {"prompt": "secret"}
    assert len(captured.spans) == 1


@by_copy
def test_spans_of_a_trace_that_is_not_sampled(duplicate: Callable[[Any], Any], captured: CapturedSpans) -> None:
    tracer.configure(sampler=prela.AlwaysOffSampler())
    try:
        with tracer.span("root") as root, tracer.span("inner") as inner:
            for span in (root, inner):
                with prela.attach(duplicate(span)), tracer.span("below") as below:
                    assert (below.sampled, below.trace_id) == (False, root.trace_id)
    finally:
        tracer.configure(sampler=None)
    assert captured.spans == []


def made() -> dict[str, Any]:
    with capture_spans() as spans, tracer.span("x", attributes={"a": {"b": [1]}}) as span:
        span.add_event("e", {"c": 1})
        deferred = tracer.defer()
    deferred.cancel()
    return {
        "always on": prela.AlwaysOnSampler(),
        "always off": prela.AlwaysOffSampler(),
        "probability": prela.ProbabilitySampler(0.25),
        "rate limit": prela.RateLimitingSampler(5),
        "head decision": HeadDecision(sampled=True, threshold=7),
        "privacy": Privacy(capture_content=False, withhold=("a",), redact=print),
        "policies": default_policies(),
        "policy": default_policies().policies[0],
        "evaluator": Evaluator(default_policies()),
        "span data": spans.spans[0],
        "captured spans": spans,
        "deferred": deferred,
        "block": prela.session("s1"),
        "settings": prela.load_settings(None, {}),
        "error": prela.ConfigurationError("wrong"),
    }


@by_copy
@pytest.mark.parametrize("name", made())
def test_samplers_policies_and_data(name: str, duplicate: Callable[[Any], Any]) -> None:
    value = made()[name]
    again = duplicate(value)
    assert type(again) is type(value)
    if isinstance(value, prela.ProbabilitySampler | prela.RateLimitingSampler):
        value.decide(bytes(16))
        again.decide(bytes(16))
        assert vars(again).keys() == vars(value).keys()
    elif name == "captured spans":
        assert again.spans == value.spans
    elif name in ("head decision", "span data", "settings", "privacy"):
        assert again == value


IN_ANOTHER_PROCESS = """
import json, pickle, sys
import prela_stream as prela
from prela_stream.testing import capture_spans
functions, tracer, span = pickle.loads(sys.stdin.buffer.read())
with capture_spans() as captured, prela.attach(span):
    results = [list(function(1)) if name == "generator" else function(1) for name, function in functions.items()]
print(json.dumps([results, tracer is prela.get_tracer(), [[s.name, s.parent_span_id] for s in captured.spans]]))
"""


def test_functions_that_are_shipped_to_another_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys, cloudpickle, prela_stream as prela\n"
        "tracer = prela.get_tracer()\n"
        "def plain(x):\n    with tracer.span('plain'): return x + 1\n"
        "@prela.trace(capture_arguments=True, capture_result=True)\ndef traced(x): return x + 2\n"
        "@prela.tool('named')\ndef tool(x): return x + 3\n"
        "@prela.agent\ndef generator(x): yield x + 4\n"
        "functions = {'plain': plain, 'traced': traced, 'tool': tool, 'generator': generator}\n"
        "with tracer.span('root') as root:\n    data = cloudpickle.dumps((functions, tracer, root))\n"
        "done = subprocess.run([sys.executable, '-c', sys.argv[1]], input=data, stdout=subprocess.PIPE, check=True)\n"
        "print(root.span_id)\nprint(done.stdout.decode())\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), IN_ANOTHER_PROCESS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    root, answer = done.stdout.split("\n", 1)
    results, is_global, spans = json.loads(answer)
    assert (results, is_global) == ([2, 3, 4, [5]], True)
    assert spans == [[name, root] for name in ("plain", "traced", "named", "generator")]


def test_a_deep_copied_object_made_before_init_uses_the_tracer_that_init_starts(captured: CapturedSpans) -> None:
    before = copy.deepcopy(Agent(get_tracer(), get_tracer().span))
    with before.tracer.span("of the copy"), before.start("by its method"):
        pass
    assert_tree(captured.spans, "of the copy\n  by its method")
