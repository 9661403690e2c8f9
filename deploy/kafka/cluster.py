"""A real Kafka of one broker or three on this machine, for tests, benches and people: KRaft, own data folder, own ports.

    with KafkaCluster() as kafka:
        ...  # kafka.bootstrap is what clients connect to

Standard library only, and blocking: call it from a thread where an event loop runs.
"""

import base64
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.archive import with_archive
from deploy.kafka.broker import STOP_SECONDS, Broker, Java
from deploy.kafka.errors import BrokerError
from deploy.kafka.jars import fetch_jars, find_java
from deploy.kafka.probe import Acl, create_acls, has_acl
from deploy.kafka.security import Certificates, Security, make_certificates
from deploy.kafka.settings import CONTROLLER, HOST, PLAIN, claim_ports, default_settings, listener_settings, release

QUICK_START = ("-Xshare:auto", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For tests: up soon, at the price of the last compiler's throughput."""
THROUGHPUT = ("-Xshare:auto", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
"""For benches: warm-up counts, a second at the start does not."""
ACL_SECONDS = 30.0
SIMPLE_LOGGER = "-Dorg.slf4j.simpleLogger"
QUIET = (
    f"{SIMPLE_LOGGER}.defaultLogLevel=warn",
    f"{SIMPLE_LOGGER}.showDateTime=true",
    f"{SIMPLE_LOGGER}.dateTimeFormat=HH:mm:ss.SSS",
    f"{SIMPLE_LOGGER}.log.org.apache.kafka.clients.NetworkClient=error",  # brokers try to reach others that have not started yet
)


def prepare(*options: str) -> Java:
    """Everything that starting needs: Java with these options, Kafka's jars, and the archive of their classes.

    Raises:
        KafkaMissingError: No Java, or the jars cannot be had.
    """
    return with_archive(Java(path=find_java(), jars=fetch_jars(), options=(*QUIET, *options)))


class KafkaCluster:
    """One broker or three; every broker is a controller too.

    Args:
        brokers: How many.
        data_dir: Where properties, data and logs go, a folder a broker; kept. None: a temporary folder that `close` removes.
        ports: The plain listeners' ports, one a broker. None: free ones.
        security: What is asked of clients on further listeners; see `bootstrap_of`.
        properties: Broker properties on top of the cluster's own.
        heap_mb: The heap of each broker, MiB.
        jvm: Further options of the JVM: QUICK_START or THROUGHPUT.

    Raises:
        KafkaMissingError: No Java, the jars cannot be had, or certificates are wanted and there is no `openssl`.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        data_dir: Path | None = None,
        ports: Sequence[int] = (),
        security: Security | None = None,
        properties: Mapping[str, str] | None = None,
        heap_mb: int = 384,
        jvm: Sequence[str] = QUICK_START,
    ) -> None:
        if ports and len(ports) != brokers:
            raise ValueError(f"expected one port a broker, {brokers}; came {list(ports)}: name as many, or none")
        java = prepare(f"-Xmx{heap_mb}m", *jvm)
        asked = security or Security()
        self._temporary = data_dir is None
        self.data_dir = Path(tempfile.mkdtemp(prefix="prela-kafka-")) if data_dir is None else data_dir.resolve()
        self.certificates = Certificates(folder=self.data_dir / "certificates")
        self._needs_certificates = asked.tls
        listeners = asked.listeners(self.certificates)
        protocols = {PLAIN: PLAIN, CONTROLLER: PLAIN, **{listener.name: listener.protocol for listener in listeners}}
        names = [name for name in protocols if name != PLAIN or not ports]
        self._claims = claim_ports(brokers * len(names), but=ports)
        self._release = weakref.finalize(self, release, self._claims)
        self._ports = _ports(brokers, ports, names, self._claims)
        voters = [f"{node}@{HOST}:{own[CONTROLLER]}" for node, own in enumerate(self._ports, start=1)]
        shared = {
            "controller.quorum.voters": ",".join(voters),
            **default_settings(brokers),
            **{key: value for listener in listeners for key, value in listener.settings().items()},
            **asked.properties(),
            **(properties or {}),
        }
        cluster_id = self._cluster_id()
        self.broker = tuple(
            Broker(
                node_id=node,
                port=own[PLAIN],
                folder=self.data_dir / f"broker-{node}",
                properties={**listener_settings(node, own, protocols), **shared},
                cluster_id=cluster_id,
                java=java,
                format_arguments=asked.format_arguments(),
            )
            for node, own in enumerate(self._ports, start=1)
        )

    @property
    def bootstrap(self) -> str:
        """The plain listeners, as clients want them: `host:port,…`."""
        return self.bootstrap_of(PLAIN)

    def bootstrap_of(self, listener: str) -> str:
        """The listeners of this name, SSL, SASL_PLAINTEXT or SASL_SSL, as clients want them: `host:port,…`."""
        known = sorted(set(self._ports[0]) - {CONTROLLER})
        if listener not in known:
            raise ValueError(f"expected one of the listeners {known}; came {listener!r}: ask for it with `security`")
        return ",".join(f"{HOST}:{own[listener]}" for own in self._ports)

    def allow(self, user: str, resource: str, name: str, *operations: str) -> None:
        """Give a user rights, e.g. `allow("alice", "topic", "spans", "read", "describe")`; every broker knows when it returns.

        Args:
            user: The principal's name.
            resource: topic, group, transactional_id or cluster (whose name is `kafka-cluster`).
            name: The resource's name; a `*` at its end makes it a prefix.
            operations: all, read, write, create, describe, …
        """
        acls = [Acl(user=user, resource=resource, name=name, operation=operation) for operation in operations]
        running = [broker for broker in self.broker if broker.running]
        create_acls(HOST, running[0].port, acls)
        deadline = time.monotonic() + ACL_SECONDS
        for broker in running:
            while not all(has_acl(HOST, broker.port, acl) for acl in acls):
                broker.check()
                if time.monotonic() > deadline:
                    raise BrokerError(f"expected broker {broker.node_id} to know {acls} within {ACL_SECONDS:.0f} s")
                time.sleep(0.01)

    def start(self) -> None:
        """Start every broker that is not running; returns when each answers and knows all.

        Raises:
            BrokerError: One ended, or they did not find each other in time.
        """
        if self._needs_certificates:
            make_certificates(self.certificates.folder)
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
        self._release()
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


def _ports(brokers: int, plain: Sequence[int], names: Sequence[str], drawn: Iterable[int]) -> list[dict[str, int]]:
    """The ports of each broker's listeners by name: the plain ones if they are given, and for `names` those that were drawn."""
    rest = iter(drawn)
    named = [{PLAIN: port} for port in plain] or [{} for _ in range(brokers)]
    return [{**own, **{name: next(rest) for name in names}} for own in named]
