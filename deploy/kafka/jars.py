"""The Java side: which `java` to use, and Kafka's jars, fetched once by Maven into the user's cache.

The folder is named after the content of `pom.xml`, so clones share it and a new version gets its own. Many processes may ask
at once: one fetches under a lock, into a folder that gets its name only when it is whole.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from deploy.kafka.errors import KafkaMissingError

POM = Path(__file__).with_name("pom.xml")
CACHE_VARIABLE = "PRELA_KAFKA_CACHE"
"""Environment variable that names the folder to keep jars in, instead of the user's cache."""
OLDEST_JAVA = 17
FETCH_SECONDS = 600.0


def kafka_version() -> str:
    """The version that `pom.xml` names."""
    found = ET.parse(POM).findtext("{*}properties/{*}kafka.version")  # noqa: S314  # our own file
    assert found is not None, f"expected <kafka.version> among the properties of {POM}; found none: add it"
    return found


def find_java() -> str:
    """The path of a `java` that Kafka runs on: JAVA_HOME's, else the one on PATH.

    Raises:
        KafkaMissingError: None is there, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    wanted = f"Kafka {kafka_version()} needs Java {OLDEST_JAVA} or newer"
    if path is None:
        where = f"JAVA_HOME={home} has no bin/java" if home else "no `java` is on PATH"
        raise KafkaMissingError(f"{wanted}; {where}: install a JRE (Debian: default-jre-headless) or set JAVA_HOME")
    output = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', output)
    if version is None or int(version[1]) < OLDEST_JAVA:
        came = output.strip().splitlines()[0] if output.strip() else "nothing"
        raise KafkaMissingError(f"{wanted}; {path} -version printed {came!r}: install a newer JRE or set JAVA_HOME")
    return path


def fetch_jars() -> Path:
    """The folder with Kafka's jars; fetched with Maven if this version is not in the cache yet.

    Raises:
        KafkaMissingError: Maven is needed and missing, or it failed.
    """
    root = _cache_root()
    folder = root / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _cache_root() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "prela-stream"


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaMissingError(
            f"the jars of Kafka {kafka_version()} are not in {folder} and Maven has to fetch them; no `mvn` is on PATH: "
            "install Maven (Debian: maven), or name a running broker in PRELA_TEST_BOOTSTRAP"
        )
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    goal = [
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={fresh}",
    ]
    command = [maven, "--batch-mode", "--quiet", "--no-transfer-progress", "--file", str(POM), *goal]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
        if done.returncode or not list(fresh.glob("kafka_*.jar")):
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise KafkaMissingError(
                f"expected `{maven}` to fetch the jars that {POM} names; it ended with {done.returncode}: "
                f"check the network, or run it by hand with --file {POM}\n{tail}"
            )
        fresh.chmod(0o755)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes that ask for this file's lock; the file stays."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
