"""A real Kafka of one broker or three on this machine, for tests, benches and people: KRaft, own data folder, own ports.

    with KafkaCluster() as kafka:
        ...  # kafka.bootstrap is what clients connect to

Standard library only, and blocking: call it from a thread where an event loop runs.
"""

import base64
import random
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.broker import HOST, STOP_SECONDS, Broker, Java
from deploy.kafka.jars import fetch_jars, find_java

QUICK_START = ("-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For tests: up soon, at the price of the last compiler's throughput."""
THROUGHPUT = ("-Xshare:auto", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
"""For benches: warm-up counts, a second at the start does not."""
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

PORTS = range(20_000, 32_000)
"""Below what systems give to outgoing connections: while a broker is down nothing else takes its port, and no client that
tries to reach it connects to itself."""


class KafkaCluster:
    """One broker or three; every broker is a controller too.

    Args:
        brokers: How many.
        data_dir: Where properties, data and logs go, a folder a broker; kept. None: a temporary folder that `close` removes.
        ports: The plain listeners' ports, one a broker. None: free ones.
        properties: Broker properties on top of the cluster's own.
        heap_mb: The heap of each broker, MiB.
        jvm: Further options of the JVM: QUICK_START or THROUGHPUT.

    Raises:
        KafkaMissingError: No Java, or the jars cannot be had.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        data_dir: Path | None = None,
        ports: Sequence[int] = (),
        properties: Mapping[str, str] | None = None,
        heap_mb: int = 384,
        jvm: Sequence[str] = QUICK_START,
    ) -> None:
        if ports and len(ports) != brokers:
            raise ValueError(f"expected one port a broker, {brokers}; came {list(ports)}: name as many, or none")
        java = Java(path=find_java(), jars=fetch_jars(), options=(f"-Xmx{heap_mb}m", *jvm, *QUIET))
        self._temporary = data_dir is None
        self.data_dir = Path(tempfile.mkdtemp(prefix="prela-kafka-")) if data_dir is None else data_dir
        self.data_dir.mkdir(parents=True, exist_ok=True)
        plain = ports or free_ports(brokers)
        quorum = free_ports(brokers, but=plain)
        shared = {
            **_defaults(brokers),
            "controller.quorum.voters": ",".join(f"{n}@{HOST}:{port}" for n, port in enumerate(quorum, start=1)),
            **(properties or {}),
        }
        cluster_id = self._cluster_id()
        self.broker = tuple(
            Broker(
                node_id=node,
                port=plain[node - 1],
                folder=self.data_dir / f"broker-{node}",
                properties={**_listeners(node, plain[node - 1], quorum[node - 1]), **shared},
                cluster_id=cluster_id,
                java=java,
            )
            for node in range(1, brokers + 1)
        )

    @property
    def bootstrap(self) -> str:
        """The plain listeners, as clients want them: `host:port,…`."""
        return ",".join(broker.address for broker in self.broker)

    def start(self) -> None:
        """Start every broker that is not running; returns when each answers and knows all.

        Raises:
            BrokerError: One ended, or they did not find each other in time.
        """
        resting = [broker for broker in self.broker if not broker.running]
        with ThreadPoolExecutor(len(self.broker)) as threads:  # formatting is a JVM each
            list(threads.map(lambda broker: broker.start(wait=False), resting))
        everyone = frozenset(broker.node_id for broker in self.broker)
        for broker in self.broker:
            broker.wait_ready(everyone)

    def check(self) -> None:
        """Raise BrokerError, with the end of its log, if a broker does not run."""
        for broker in self.broker:
            broker.check()

    def stop(self, within: float = STOP_SECONDS) -> None:
        """Stop every broker as an operator does; who takes longer than so many seconds is killed. Data stay."""
        for broker in self.broker:
            broker.ask_to_stop()
        deadline = time.monotonic() + within
        for broker in self.broker:
            broker.wait_stopped(max(deadline - time.monotonic(), 0))

    def close(self) -> None:
        """Stop every broker; a temporary data folder is removed, and nothing is stopped gently for it."""
        if not self._temporary:
            self.stop()
            return
        for broker in self.broker:
            broker.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)  # closing twice is fine

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cluster_id(self) -> str:
        """The id that this data folder was formatted with, or a new one."""
        for file in self.data_dir.glob("broker-*/data/meta.properties"):
            for line in file.read_text(encoding="utf-8").splitlines():
                if line.startswith("cluster.id="):
                    return line.partition("=")[2]
        return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")


def free_ports(count: int, but: Sequence[int] = ()) -> list[int]:
    """So many ports that nobody listens on, out of PORTS."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
        if port not in but:
            found.append(port)
    return found


def _listeners(node: int, plain: int, quorum: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "listeners": f"PLAINTEXT://{HOST}:{plain},CONTROLLER://{HOST}:{quorum}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{plain}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _defaults(brokers: int) -> dict[str, str]:
    replicas, in_sync = str(min(brokers, 3)), str(2 if brokers >= 3 else 1)
    return {
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # Kafka's default: a client that creates topics by asking about them is seen here as it would be in production.
        "auto.create.topics.enable": "true",
        "group.initial.rebalance.delay.ms": "50",
        "group.min.session.timeout.ms": "500",
        # A killed broker's seat is free again after this; its next life waits for it.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),  # the default alone would fill a small heap
        "log.segment.bytes": str(64 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
