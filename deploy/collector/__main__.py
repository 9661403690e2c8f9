"""Build the Collector of builder.yaml and print the path of its binary: `python -m deploy.collector [--folder DIR]`.

It needs Go, and takes a quarter of an hour on two busy cores if Go's module cache is empty. A binary that was built from the same
builder.yaml is used again.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.collector.errors import CollectorMissingError

BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.165.0"
MANIFEST = Path(__file__).parent / "builder.yaml"


def folder() -> Path:
    """Where the binary is kept: `PRELA_COLLECTOR_DIR`, else a folder of the user's cache."""
    chosen = os.environ.get("PRELA_COLLECTOR_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else cache / "prela-stream" / "collector"


def binary(where: Path | None = None) -> Path | None:
    """The binary that was built from the present manifest, or None."""
    path = (where or folder()) / _digest() / "otelcol"
    return path if path.exists() else None


def build(where: Path | None = None) -> Path:
    """Build the binary if it is missing.

    Raises:
        CollectorMissingError: Go is missing, or a step of the build failed; the message has the end of its output.
    """
    if (present := binary(where)) is not None:
        return present
    go = shutil.which("go")
    if go is None:
        msg = "go is missing, so the Collector cannot be built: install Go 1.25 or newer"
        raise CollectorMissingError(msg)
    target = (where or folder()) / _digest()
    source = target / "source"
    target.mkdir(parents=True, exist_ok=True)
    manifest = MANIFEST.read_text().replace("  name: otelcol\n", f"  name: otelcol\n  output_path: {source}\n", 1)
    (target / "builder.yaml").write_text(manifest)
    environment = dict(os.environ, GOBIN=str(target))
    _run([go, "install", BUILDER], target, environment)
    _run([str(target / "builder"), "--config", str(target / "builder.yaml"), "--skip-compilation"], target, environment)
    _run([go, "build", "-trimpath", "-o", str(target / "otelcol.part"), "."], source, environment)
    (target / "otelcol.part").rename(target / "otelcol")
    return target / "otelcol"


def _digest() -> str:
    return hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:12]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    print("running", " ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{command[0]} failed with exit code {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
        raise CollectorMissingError(msg)


def main() -> int:
    """Build, and return the exit code: 2 if the Collector cannot be built here."""
    parser = argparse.ArgumentParser(prog="python -m deploy.collector", description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where the binary is kept")
    options = parser.parse_args()
    try:
        print(build(options.folder))
    except CollectorMissingError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
