"""The architecture: layers, purity, no cycles, adapters behind their interfaces, one swallowing handler, a light import."""

import ast
import copy
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "prela_stream"
SOURCES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_layer_contracts_hold() -> None:
    """Layers (exhaustive), purity, adapters named by `app` alone, no cycles among siblings: pyproject.toml."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


INTERFACES = {
    "prela_stream.transport": {"base", "lag", "findings", "options", "refusals", "topics"},
    "prela_stream.sinks": {
        *("base", "registry", "fragments", "iterators", "kept_trace", "service", "span_items"),
        *("documents", "observer", "otlp_spans", "settings", "topic_consumer"),
        *("query", "reader", "briefs", "calls", "estimates", "texts", "trace_ids", "trace_rows"),
    },
}
"""What transports, and sinks, share. Every other child of these packages is an adapter, a new one too."""


def adapters_of(graph: grimp.ImportGraph) -> set[str]:
    """The modules and packages of concrete transports and sinks."""
    return {
        child
        for package, shared in INTERFACES.items()
        for child in graph.find_children(package)
        if child.rpartition(".")[2] not in shared
    }


def imports_of_adapters(graph: grimp.ImportGraph) -> Iterator[str]:
    """Each import of an adapter from outside `app` and the adapter, as `importer -> imported`. Options are no adapter's code."""
    for adapter in adapters_of(graph):
        for module in (adapter, *graph.find_descendants(adapter)):
            for importer in graph.find_modules_that_directly_import(module):
                inside = f"{importer}.".startswith((f"{adapter}.", "prela_stream.app."))
                if not inside and not module.endswith(".options"):
                    yield f"{importer} -> {module}"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports of the package that run."""
    return grimp.build_graph("prela_stream", exclude_type_checking_imports=True, cache_dir=None)


def test_only_the_composition_root_imports_adapters(graph: grimp.ImportGraph) -> None:
    assert {"prela_stream.transport.kafka", "prela_stream.sinks.sqlite"} <= adapters_of(graph)
    assert sorted(imports_of_adapters(graph)) == []


@pytest.mark.parametrize(
    "importer", ["worker.service", "cli.traces", "sinks.service", "config", "transport.local.log", "a_new_one"]
)
@pytest.mark.parametrize("adapter", ["transport.kafka.consumer", "sinks.sqlite.reader", "sinks.a_new_one"])
def test_an_import_of_an_adapter_is_found(graph: grimp.ImportGraph, importer: str, adapter: str) -> None:
    planted = copy.deepcopy(graph)
    planted.add_import(importer=f"prela_stream.{importer}", imported=f"prela_stream.{adapter}")
    assert sorted(imports_of_adapters(planted)) == [f"prela_stream.{importer} -> prela_stream.{adapter}"]


def test_only_the_kafka_transport_imports_aiokafka() -> None:
    everything = grimp.build_graph(
        "prela_stream", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    importers = everything.find_modules_that_directly_import("aiokafka")
    assert importers, "the graph has no external packages"
    assert [name for name in importers if not name.startswith("prela_stream.transport.kafka.")] == []


def test_one_swallowing_handler_in_the_tree() -> None:
    trees = {path.relative_to(ROOT): tree_of(path) for path in SOURCES}
    broad = [f"{path}:{ast.unparse(n)[:60]}" for path, tree in trees.items() for n in ast.walk(tree) if _swallows(n)]
    assert broad == [], "only errors.guard() may swallow: use `with guard(...)`"


def _swallows(node: ast.AST) -> bool:
    if isinstance(node, ast.With | ast.AsyncWith):
        return any("suppress(Exception" in ast.unparse(item) for item in node.items)
    return isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _lets_out(node)


def _is_broad(kind: ast.expr | None) -> bool:
    names = (
        [] if kind is None else [ast.unparse(part) for part in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
    )
    return kind is None or bool({"Exception", "BaseException"} & set(names))


def _lets_out(handler: ast.ExceptHandler) -> bool:
    """Whether the error goes on: raised again, or thrown into the generator that is being driven."""
    thrown = {"throw", "athrow"}
    nodes = list(ast.walk(handler))
    return any(isinstance(node, ast.Raise) for node in nodes) or any(
        isinstance(node, ast.Attribute) and node.attr in thrown for node in nodes
    )


def test_import_loads_no_extra_and_no_aiokafka() -> None:
    code = "import sys, json; old = set(sys.modules); import prela_stream; print(json.dumps(sorted(set(sys.modules) - old)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    extras = {
        "aiokafka",
        "anthropic",
        "openai",
        "typer",
        "rich",
        "starlette",
        "uvicorn",
        "httpx2",
        "jinja2",
        "sqlite3",
        "cramjam",
        "pytest",
        "opentelemetry",
        "prela",
        "ddtrace",
    }
    assert loaded & extras == set()


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in SOURCES if not ast.get_docstring(tree_of(path))]
    assert silent == []


def test_no_file_has_outgrown_its_one_job() -> None:
    long = {
        str(path.relative_to(ROOT)): n
        for path in SOURCES
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}
