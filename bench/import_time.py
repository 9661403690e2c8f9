"""What `import prela_stream` costs, and the same with `init`, the first name that most programs use; beside it the peers.

    python bench/import_time.py [--rounds 15]

Each import runs in a fresh interpreter, the subjects taking turns; its own clock is read right before and after it, so the
interpreter's start does not count. Prints JSON: medians and minima in milliseconds. A peer that is not installed is `null`.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

BUDGET_MS = 60.0
SUBJECTS = {
    "ours": "import prela_stream",
    "ours_get_tracer": "import prela_stream; prela_stream.get_tracer",
    "ours_init": "import prela_stream; prela_stream.init",
    "otel": "import opentelemetry.sdk.trace, opentelemetry.sdk.trace.export",
    "ddtrace": "import ddtrace.trace",
    "prela": "import prela",
}
PROGRAM = "import time; began = time.perf_counter(); {}; print((time.perf_counter() - began) * 1e3)"


def measure(statement: str) -> float | None:
    """Milliseconds of one import in an interpreter of its own; None if it fails."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(root), "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_TRACE_ENABLED": "false"},
    )
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    for number in range(rounds + 1):
        for name, statement in SUBJECTS.items():
            spent = measure(statement)
            if spent is not None and number:  # the first one writes the bytecode
                taken[name].append(spent)
    result: dict[str, Any] = {"python": platform.python_version(), "rounds": rounds, "budget_ms": BUDGET_MS}
    for name, times in taken.items():
        result[f"{name}_ms"] = round(statistics.median(times), 1) if times else None
        result[f"{name}_min_ms"] = round(min(times), 1) if times else None
    print(json.dumps(result, indent=2))
    if not taken["ours"] or statistics.median(taken["ours"]) > BUDGET_MS:
        sys.exit(1)


if __name__ == "__main__":
    main()
