"""Instrumentors of OpenTelemetry are activated when their library is imported, and missing ones are named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import json, logging, sys
logging.basicConfig(format="LOG %(message)s", stream=sys.stdout)
from prela_stream.instrumentation import libraries, registry
from prela_stream.instrumentation.libraries import Library
from prela_stream.testing import capture_spans
libraries.LIBRARIES.clear()
libraries.LIBRARIES["framework"] = Library(
    module="framework", distribution="framework", package="framework-instrumentor", path="framework_instrumentor:Instrumentor",
    callers=("framework.models",), tested="framework 1.0",
)
"""
INSTRUMENTOR = """
class Instrumentor:
    is_instrumented_by_opentelemetry = False
    calls = []
    def instrument(self, **options):
        import framework
        self.calls.append(sorted(options))
        if framework.REFUSED:
            return
        Instrumentor.is_instrumented_by_opentelemetry = True
        tracer = options["tracer_provider"].get_tracer("framework")
        framework.run = lambda: tracer.start_span("run").end()
    def uninstrument(self):
        self.calls.append("undone")
        Instrumentor.is_instrumented_by_opentelemetry = False
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the packages `framework` 1.0 and `framework-instrumentor` 0.1."""
    (tmp_path / "framework.py").write_text("REFUSED = False\n")
    (tmp_path / "framework_instrumentor.py").write_text(INSTRUMENTOR)
    for name, version in (("framework", "1.0"), ("framework_instrumentor", "0.1")):
        metadata = tmp_path / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    return tmp_path


def run(site: Path, program: str) -> tuple[Any, list[str]]:
    """The result that the program prints as its last line, and the lines of its log."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]), [line for line in lines if line.startswith("LOG ")]


def remove(site: Path, name: str) -> None:
    """Remove the metadata of a package, as if it were not installed."""
    (folder,) = site.glob(f"{name}-*.dist-info")
    folder.rename(site / f"gone-{name}")


def test_it_imports_nothing_until_the_program_imports_the_library(site: Path) -> None:
    result, log = run(
        site,
        """
with capture_spans() as captured:
    names = registry.auto_instrument(names=["framework"])
    before = sorted({"framework", "framework_instrumentor", "opentelemetry.sdk"} & set(sys.modules))
    import framework, framework_instrumentor
    framework.run()
    spans = [span.name for span in captured.spans]
    registry.uninstrument()
print(json.dumps([names, before, spans, framework_instrumentor.Instrumentor.calls]))
""",
    )
    assert result == [["framework"], [], ["run"], [["tracer_provider"], "undone"]]
    assert log == []


@pytest.mark.parametrize("missing", ["framework_instrumentor", "opentelemetry_sdk"])
def test_one_line_names_the_packages_that_are_missing(site: Path, missing: str) -> None:
    package = missing.replace("_", "-")
    if missing == "opentelemetry_sdk":
        hide = "import prela_stream.instrumentation.otel_libraries as o; o.SDK = 'opentelemetry-sdk-that-is-missing'\n"
        package = "opentelemetry-sdk-that-is-missing"
    else:
        hide = ""
        remove(site, missing)
    result, log = run(
        site, hide + "print(json.dumps([registry.auto_instrument() and None, registry.auto_instrument()]))"
    )
    assert "framework" not in result[1]
    assert log == [f"LOG prela_stream does not trace framework. To trace it: pip install {package}"]


def test_a_library_that_is_not_installed_or_has_other_uses_is_not_reported(site: Path) -> None:
    remove(site, "framework_instrumentor")
    result, log = run(
        site,
        """
import msgspec
entry = libraries.LIBRARIES["framework"]
libraries.LIBRARIES["framework"] = msgspec.structs.replace(entry, is_optional=True)
libraries.LIBRARIES["absent"] = msgspec.structs.replace(entry, module="absent", distribution="absent")
print(json.dumps(registry.auto_instrument(names=["framework", "absent"])))
""",
    )
    assert (result, log) == ([], [])


def test_a_module_of_the_same_name_is_not_the_library(site: Path) -> None:
    """A program may have a package `agents`."""
    remove(site, "framework")
    assert run(site, 'import framework; print(json.dumps(registry.auto_instrument(names=["framework"])))') == ([], [])


def test_a_library_that_traces_itself_needs_a_version(site: Path) -> None:
    program = """
import msgspec
entry = libraries.LIBRARIES["framework"]
for since in ("1.0", "2.0"):
    libraries.LIBRARIES["framework"] = msgspec.structs.replace(entry, package="", path="", since=since)
    names = registry.auto_instrument(names=["framework"])
    print(json.dumps(names)) if since == "2.0" else None
"""
    result, log = run(site, program)
    assert result == []
    assert log == ["LOG prela_stream does not trace framework. To trace it: pip install 'framework>=2.0'"]


def test_an_instrumentor_that_refuses_is_reported_with_the_versions(site: Path) -> None:
    (site / "framework.py").write_text("REFUSED = True\n")
    result, log = run(
        site,
        """
from prela_stream.instrumentation.callers import _claimed
import framework
print(json.dumps([registry.auto_instrument(names=["framework"]), list(_claimed)]))
""",
    )
    assert result == [[], []]
    assert log == [
        "LOG prela_stream does not trace framework: framework-instrumentor 0.1 refuses framework 1.0; tested are framework 1.0"
    ]


def test_an_instrumentor_that_the_program_has_activated_is_left_as_it_is(site: Path) -> None:
    result, _ = run(
        site,
        """
import framework
from framework_instrumentor import Instrumentor
from prela_stream import bridge_opentelemetry
with capture_spans() as captured:
    Instrumentor().instrument(tracer_provider=bridge_opentelemetry())
    names = registry.auto_instrument(names=["framework"])
    framework.run()
    registry.uninstrument()
    print(json.dumps([names, [span.name for span in captured.spans], Instrumentor.calls]))
""",
    )
    assert result == [["framework"], ["run"], [["tracer_provider"]]]


@pytest.mark.parametrize(("given", "expected"), [("opentelemetry=False", []), ("opentelemetry=True", ["framework"])])
def test_opentelemetry_can_be_left_out(site: Path, given: str, expected: list[str]) -> None:
    assert run(site, f'print(json.dumps(registry.auto_instrument(names=["framework"], {given})))')[0] == expected


def test_content_of_other_instrumentors_is_switched_on_only_if_no_exporter_of_the_program_gets_it(site: Path) -> None:
    program = """
import os
registry.auto_instrument(names=["framework"])
{0}
import framework
print(json.dumps(os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")))
"""
    own = "import opentelemetry.trace as t, opentelemetry.sdk.trace as s; t.set_tracer_provider(s.TracerProvider())"
    assert run(site, program.format("")) == ("SPAN_ONLY", [])
    assert run(site, program.format(own)) == (None, [])


@pytest.mark.parametrize("is_missing", [False, True])
def test_doctor_names_what_is_traced_and_what_has_to_be_installed(site: Path, is_missing: bool) -> None:
    if is_missing:
        remove(site, "framework_instrumentor")
    result, _ = run(
        site,
        """
from prela_stream.app.doctor import _libraries
found = _libraries()
print(json.dumps([found.check, found.state, found.text]))
""",
    )
    assert result[:2] == ["libraries", "ok"]
    assert ("framework by framework-instrumentor" in result[2]) is not is_missing
    assert ("framework (pip install framework-instrumentor)" in result[2]) is is_missing
