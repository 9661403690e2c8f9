"""An archive of Kafka's classes, created once per JVM, that makes the start of each broker a third faster.

A broker spends most of its start on loading and verifying some 8,000 classes. An option makes Java keep what a run has loaded
(https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html). It checks that jars and JVM are still the same.
"""

import hashlib
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from deploy.kafka.broker import Broker, Java
from deploy.kafka.jars import locked
from deploy.kafka.settings import CONTROLLER, HOST, PLAIN, claim_ports, default_settings, listener_settings, release

DUMP_SECONDS = 120.0


def with_archive(java: Java) -> Java:
    """`java` with the archive of classes beside the jars. The first caller creates it and the others wait for it.

    Raises:
        BrokerError: the broker that writes the archive does not start.
    """
    version = subprocess.run([java.path, "-version"], capture_output=True, check=True).stderr
    key = hashlib.sha256(java.path.encode() + version).hexdigest()[:8]
    archive = java.jars.with_name(f"{java.jars.name}-{key}.jsa")
    if not archive.exists():
        with locked(archive.with_suffix(".lock")):
            if not archive.exists():
                _make(archive, java)
    return replace(java, options=(*java.options, f"-XX:SharedArchiveFile={archive}"))


def _make(archive: Path, java: Java) -> None:
    claims = claim_ports(2)
    plain, quorum = claims
    fresh = archive.with_suffix(f".{os.getpid()}")
    # Other JVMs than HotSpot do not know the option and leave no archive; an empty file is then what all JVMs ignore.
    dump = ("-XX:+IgnoreUnrecognizedVMOptions", f"-XX:ArchiveClassesAtExit={fresh}")
    with tempfile.TemporaryDirectory(prefix="prela-kafka-") as folder:
        settings = {
            **listener_settings(1, {PLAIN: plain, CONTROLLER: quorum}, {PLAIN: PLAIN, CONTROLLER: PLAIN}),
            **default_settings(1),
            "controller.quorum.voters": f"1@{HOST}:{quorum}",
        }
        broker = Broker(
            node_id=1,
            port=plain,
            folder=Path(folder),
            properties=settings,
            cluster_id="classes-for-the-archive",
            java=replace(java, broker_options=dump),
        )
        try:
            broker.start()
            broker.stop(DUMP_SECONDS)
        finally:
            broker.kill()
            release(claims)
    fresh.touch()
    fresh.rename(archive)
