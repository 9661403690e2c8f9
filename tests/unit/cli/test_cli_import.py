"""`prela-stream import`: counts of a file, rejected parts, and spans that a worker decides."""

import json
import os
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner, Result

from prela_stream.app import open_reader, run_dev
from prela_stream.cli.main import app
from prela_stream.config import load_settings
from prela_stream.errors import PrelaError
from prela_stream.model.decision import Basis, Trigger
from prela_stream.model.span import SpanType
from tests.support.processes import DEADLINE
from tests.unit.otel.test_files import CHILD, ROOT, START, TRACE, otlp, otlp_span

SHARED = Path(__file__).resolve().parents[4] / "shared" / "traces"


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)], input=stdin)


def call(span_id: str, parent: str, **more: str) -> dict[str, object]:
    values = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **more}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]
    attributes += [{"key": f"gen_ai.usage.{one}_tokens", "value": {"intValue": "12"}} for one in ("input", "output")]
    return otlp_span(span_id, parent, attributes=attributes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A trace whose model call two tracers recorded, one with its messages and one inside it, and a span without an id."""
    outer = call(CHILD, ROOT, **{"gen_ai.input.messages": "hello"})
    spans = [otlp_span(ROOT, None), outer, call("00000000000000a3", CHILD), otlp_span("", ROOT)]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(otlp(*spans)))
    return path


def test_a_dry_run_counts_each_call_once(file: Path, tmp_path: Path) -> None:
    result = run(file, "--dry-run", "--json", "--dir", tmp_path / "p")
    (line,) = result.stdout.splitlines()
    counts = json.loads(line)
    (rejected,) = counts.pop("rejected")
    assert counts == {
        "file": str(file),
        "spans": 3,
        "traces": 1,
        "roots": 1,
        "types": {"CUSTOM": 1, "LLM": 2},
        "model_calls": 1,
        "input_tokens": 12,
        "output_tokens": 12,
        "readable_calls": 1,
    }
    assert "spans[3]" in rejected["place"]
    assert "span id" in rejected["reason"]
    assert result.exit_code == 1
    assert not (tmp_path / "p").exists()


def test_standard_input_and_a_table(file: Path, tmp_path: Path) -> None:
    result = run("-", "--dry-run", "--dir", tmp_path / "p", stdin=file.read_bytes())
    assert result.exit_code == 1
    assert "rejected" in result.stdout
    assert "spans[3]" in result.stderr


def test_one_file_that_is_no_trace_costs_no_other(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"hello": 1}')
    first, second = map(json.loads, run(other, file, "--dry-run", "--json").stdout.splitlines())
    assert first["spans"] == 0
    assert "known format" in first["rejected"][0]["reason"]
    assert second["spans"] == 3


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path / "none.json")
    assert result.exit_code == 2
    assert f"there is no file {tmp_path / 'none.json'}" in result.stderr


@pytest.mark.slow
async def test_imported_spans_are_decided_and_stored(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policies = tmp_path / "all.toml"
    policies.write_text('[[policy]]\ntype = "always"\n')
    variables = {
        "PRELA_POLICIES_FILE": str(policies),
        "PRELA_ASSEMBLY_OTLP_ROOT_WAIT_MS": "300",
        "PRELA_DIRECTORY": str(tmp_path / "p"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = await anyio.to_thread.run_sync(run, file)
    assert result.exit_code == 1, result.output  # the span without an id
    settings = load_settings(env=os.environ)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_dev, settings)
        with anyio.fail_after(DEADLINE):
            while True:
                try:
                    async with open_reader(settings) as reader:
                        if (stored := await reader.get(TRACE)) is not None:
                            break
                except PrelaError:
                    pass
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert stored is not None
    assert {span.span_id for span in stored.spans} == {ROOT, CHILD, "00000000000000a3"}
    assert [span.span_type for span in stored.spans].count(SpanType.LLM) == 2
    decision = stored.decision
    assert (decision.trigger, decision.complete, decision.basis) == (Trigger.ROOT_WAIT, False, Basis.QUIET_TIME)
    assert stored.row.input_tokens == 12
    assert stored.row.start_ns == START


COUNTS = {
    "atof-first.jsonl": (4, 1, 0, 0, 0, 0),
    "jaeger-genai.json": (57, 1, 5, 8_280, 1_180, 5),
    "jaeger-kagent-k8s.json": (73, 1, 1, 2_203, 139, 1),
    "langfuse-langgraph.json": (9, 1, 2, 168, 66, 2),
    "langfuse-openai-agents.json": (5, 1, 2, 140, 44, 2),
    "map-genai.json": (1, 1, 1, 97, 52, 1),
    "map-openinference.json": (1, 1, 1, 97, 52, 1),
    "otlp-js-sdk.json": (4, 1, 0, 0, 0, 0),
    "otlp-links-and-bytes.json": (1, 1, 0, 0, 0, 0),
    "otlp-proto-example.json": (1, 0, 0, 0, 0, 0),
    "otlp-rag-earnings.json": (18, 1, 1, 629, 19, 1),
    "sdk-any-agent-langchain.json": (7, 1, 4, 1_262, 125, 4),
    "sdk-vercel-ai-v6-generate-text.json": (2, 2, 2, 64, 29, 2),
    "swe-agent-humaneval.traj": (11, 1, 5, 0, 0, 5),
    "zipkin-175-spans.json": (175, 1, 0, 0, 0, 0),
    "zipkin-missing-parents.json": (11, 1, 0, 0, 0, 0),
}
"""Spans, roots, model calls, input tokens, output tokens and readable calls of real files."""


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder with traces of other people's systems is not there")
@pytest.mark.parametrize("name", COUNTS)
def test_real_files(name: str) -> None:
    result = run(SHARED / name, "--dry-run", "--json")
    counts = json.loads(result.stdout)
    keys = ("spans", "roots", "model_calls", "input_tokens", "output_tokens", "readable_calls")
    assert tuple(counts[key] for key in keys) == COUNTS[name]
    assert counts["rejected"] == []
