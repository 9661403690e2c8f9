"""Each pair of a library and an instrumentor, in a venv of its own: the bridge and OTLP give the same, and it is true.

By OTLP means: the exporter of OpenTelemetry sends to `prela-stream otlp` in another process, and the spans are read from its log.

`make test-frameworks` runs it and writes results.json, from which docs/instrumentation.md is written. The venvs are kept in
`~/.cache/prela-stream/frameworks` (PRELA_FRAMEWORKS_CACHE moves them).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.frameworks.model_api import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS, TEXT
from tests.frameworks.pairs import PAIRS, Pair
from tests.frameworks.shown import shown
from tests.support.otlp_process import Receiver, receiver

pytestmark = pytest.mark.frameworks
ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("PRELA_FRAMEWORKS_CACHE", Path.home() / ".cache" / "prela-stream" / "frameworks"))
BASE = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
TOKENS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
)
WITHOUT_REASONING = frozenset({"anthropic", "bedrock"})
"""Their APIs do not report these tokens."""
RESULTS: list[dict[str, Any]] = []


@pytest.fixture(scope="module", autouse=True)
def results() -> Iterator[None]:
    """Write what was measured, if every pair has run."""
    yield
    if len(RESULTS) == len(PAIRS):
        text = json.dumps(RESULTS, indent=1) + "\n"
        (ROOT / "tests" / "frameworks" / "results.json").write_text(text, encoding="utf-8")


def python_of(pair: Pair) -> Path:
    """The interpreter of a venv with the packages of the pair, made if it is not there."""
    uv = shutil.which("uv")
    assert uv, "uv is not installed: pip install uv"
    wanted = (*BASE, *pair.packages)
    folder = CACHE / hashlib.blake2b(repr(wanted).encode(), digest_size=8).hexdigest()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([uv, "venv", "-q", "--clear", "-p", sys.executable, folder], check=True, timeout=120)
        subprocess.run([uv, "pip", "install", "-q", "-p", python, *wanted], check=True, timeout=900)
        (folder / "ready").touch()
    subprocess.run([uv, "pip", "install", "-q", "-p", python, "-e", ROOT], check=True, timeout=300)
    return python


@pytest.fixture(scope="module")
def otlp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver in its own process, which all pairs send to."""
    with receiver(tmp_path_factory.mktemp("otlp")) as running:
        yield running


def run(pair: Pair, otlp: Receiver) -> dict[str, Any]:
    """What the pair gives. `otlp` is what the log of the receiver has of the spans that were sent."""
    command = [str(python_of(pair)), "-m", "tests.frameworks.run_pair", pair.library, pair.path, pair.distribution]
    env = os.environ | {"OTLP_URL": otlp.url}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    # JSON has no tuples, and both ways are compared as JSON
    found["otlp"] = json.loads(json.dumps([shown(span) for span in otlp.spans(set(found["sent"]))]))
    assert sorted(span["id"] for span in found["otlp"]) == sorted(found["sent"]), "a span is lost or doubled"
    return found


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_pair(pair: Pair, otlp: Receiver) -> None:
    found = run(pair, otlp)
    spans, number = found["bridge"], len(found["answered"])
    calls = [span for span in spans if span["type"] == "LLM"]
    sums = [sum(span["attributes"].get(name, 0) for span in calls) for name in TOKENS]
    lacks = lacking(calls, sums, number, without_reasoning=pair.library in WITHOUT_REASONING)
    if pair.has_tool:
        lacks |= lacking_of_tools([span for span in spans if span["type"] == "TOOL"])
    is_equal = pair.path != "auto" and same(spans, found["otlp"])
    RESULTS.append(
        {
            "library": pair.library, "version": found["versions"].get(pair.distribution, ""), "instrumentor": pair.instrumentor,
            "requests": number, "spans": len(spans) - 1, "model_calls": len(calls), "tokens": sums,
            "equal": is_equal, "lacks": sorted(lacks),
        }
    )  # fmt: skip
    assert is_equal or pair.path == "auto"
    assert lacks == pair.lacks
    ids = {span["id"] for span in spans}
    assert [span["name"] for span in spans if span["parent"] not in ids] == ["request"], "more than one tree"
    if pair.path == "auto":
        assert pair.library in found["traced"]


def same(bridge: list[dict[str, Any]], otlp: list[dict[str, Any]]) -> bool:
    """Whether each span of OpenTelemetry is the same by either way."""
    by_id = {span["id"]: span for span in bridge if span["name"] != "request"}
    return len(by_id) == len(bridge) - 1 and by_id == {span["id"]: span for span in otlp}


def lacking(calls: list[dict[str, Any]], sums: list[int], requests: int, *, without_reasoning: bool) -> set[str]:
    """What the spans do not have of one true span for each request."""
    if requests and not calls:
        return {"calls"}
    truth = dict(zip(TOKENS, (INPUT_TOKENS, OUTPUT_TOKENS, CACHED_TOKENS, REASONING_TOKENS), strict=True))
    names = ("input", "output", "cached", *(() if without_reasoning else ("reasoning",)))
    pairs = zip(names, sums, truth.values(), strict=False)
    found = {f"{name} tokens" for name, total, of_each in pairs if total != requests * of_each}
    if len(calls) != requests:
        found.add("one span a call")
    for attributes in (call["attributes"] for call in calls):
        asked, answered = attributes.get("gen_ai.input.messages"), attributes.get("gen_ai.output.messages")
        kinds = {part["type"] for message in answered or () for part in message["parts"]}
        reasons = attributes.get("gen_ai.response.finish_reasons")
        found |= {
            name
            for name, has in {
                "model": attributes.get("gen_ai.request.model"),
                "prompts": asked and all(message["parts"] for message in asked),
                "answers": kinds and kinds <= {"text", "tool_call"},
                "finish reasons": reasons and set(reasons) <= {"stop", "tool_call"},
            }.items()
            if not has
        }
    if calls and TEXT not in repr([call["attributes"].get("gen_ai.output.messages") for call in calls]):
        found.add("answers")
    return found


def lacking_of_tools(tools: list[dict[str, Any]]) -> set[str]:
    """What the span of the tool does not have."""
    tool = next((tool for tool in tools if tool["attributes"].get("gen_ai.tool.name") == "weather"), None)
    if tool is None:
        return {"tool"}
    given, got = (tool["attributes"].get(f"gen_ai.tool.call.{key}") for key in ("arguments", "result"))
    missing = {"tool arguments": "Paris" in repr(given), "tool result": "rainy" in repr(got)}
    return {name for name, has in missing.items() if not has}
