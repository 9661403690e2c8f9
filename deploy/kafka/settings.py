"""The properties of brokers: their listeners, and defaults that make a small cluster quick to start and quick to recover."""

import random
import socket
from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"
PLAIN = "PLAINTEXT"
CONTROLLER = "CONTROLLER"
PORTS = range(20_000, 32_000)
"""Below what systems give to outgoing connections: while a broker is down nothing else takes its port, and no client that
tries to reach it connects to itself."""


def free_ports(count: int, but: Sequence[int] = ()) -> list[int]:
    """So many ports out of PORTS that no process listens on or has claimed.

    Raises:
        OSError: there are not so many.
    """
    found = claim_ports(count, but)
    release(found)
    return list(found)


def claim_ports(count: int, but: Sequence[int] = ()) -> dict[int, socket.socket]:
    """As `free_ports`, each with a socket that keeps others from drawing it too, until that is closed or its process ends.

    A port is bound long after it is drawn, and not while its broker is down. So it is claimed by its UDP namesake, which no
    Kafka uses.

    Raises:
        OSError: there are not so many.
    """
    found: dict[int, socket.socket] = {}
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) < count and port not in but and (claim := _claim(port)) is not None:
            found[port] = claim
    if len(found) == count:
        return found
    release(found)
    raise OSError(f"expected {count} free ports in {PORTS}; came {len(found)}: name ports that are free")


def release(claims: Mapping[int, socket.socket]) -> None:
    """Let others draw these ports again."""
    for claim in claims.values():
        claim.close()


def _claim(port: int) -> socket.socket | None:
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind((HOST, port))
    except OSError:
        claim.close()
        return None
    if _is_free(port):
        return claim
    claim.close()
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def listener_settings(node: int, ports: Mapping[str, int], protocols: Mapping[str, str]) -> dict[str, str]:
    """The properties that differ from broker to broker.

    Args:
        node: The broker's id.
        ports: Its listeners' ports by name, PLAIN and CONTROLLER among them.
        protocols: The security protocol of each name.
    """
    addresses = {name: f"{name}://{HOST}:{port}" for name, port in ports.items()}
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "listeners": ",".join(addresses.values()),
        "advertised.listeners": ",".join(address for name, address in addresses.items() if name != CONTROLLER),
        "listener.security.protocol.map": ",".join(f"{name}:{protocols[name]}" for name in ports),
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": PLAIN,
    }


def default_settings(brokers: int) -> dict[str, str]:
    """The properties that all brokers of a cluster of this size share."""
    replicas, in_sync = str(min(brokers, 3)), str(2 if brokers >= 3 else 1)
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
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
