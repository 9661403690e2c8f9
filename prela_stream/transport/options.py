"""Settings of the transports and of the topics. It imports nothing heavy, so reading the configuration is fast."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec

from prela_stream.text import HIDDEN, show, without_user_info
from prela_stream.validation import HOUR, bounded

CleanupPolicy = Literal["delete", "compact"]
POLL_BYTES: Final = 1 << 20
"""Default of `Consumer.poll`: uncompressed bytes per poll. Applying more at once would delay commits and heartbeats."""
AIOKAFKA_TESTED: Final = ">=0.14,<0.16"
"""The versions of aiokafka that this release was tested with; the same bounds as in pyproject.toml."""
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""The characters that Kafka allows in topic names. 200 leaves room for the suffix within Kafka's limit of 249."""
_ADDRESS = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s/@:,\[\]]+)(?::(?P<port>[0-9]{1,5}))?|[0-9A-Fa-f:.]+", re.ASCII
)


class TopicOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names and sizes of the topics. `partitions` cannot change for a prefix: to grow, let it run empty and use a new prefix."""

    prefix: str = "prela"
    """The names of the topics begin with it and a dot. Pipelines with different prefixes share a cluster."""
    partitions: Annotated[int, bounded(1, 10_000, "partitions")] = 4
    """Partitions of `spans` and `decisions`."""
    sampled_partitions: Annotated[int, bounded(1, 10_000, "partitions")] = 1
    """Partitions of `sampled` and `dlq`."""
    retention_hours: Annotated[float, bounded(0.001, 1_000_000)] = 72.0
    """How long the topics keep a record."""
    max_record_bytes: Annotated[int, bounded(10_000, 1 << 30)] = 1_000_000
    """Largest record value that the topics accept."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a setting and of what is wrong with it beyond its type."""
        if not _PREFIX.fullmatch(self.prefix):
            expected = "expected 1 to 200 letters (A to Z, a to z), digits, '.', '_' and '-'"
            yield "prefix", f"topic names start with it: {expected}, got {show(self.prefix)}"

    @property
    def spans(self) -> str:
        """Topic of the span items."""
        return f"{self.prefix}.spans"

    @property
    def decisions(self) -> str:
        """Topic of the decisions."""
        return f"{self.prefix}.decisions"

    @property
    def sampled(self) -> str:
        """Topic of the kept traces."""
        return f"{self.prefix}.sampled"

    @property
    def dlq(self) -> str:
        """Dead-letter topic: what could not be read."""
        return f"{self.prefix}.dlq"


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the local transport."""

    path: str = ".prela/log.db"
    """The SQLite file. A missing folder is created."""
    session_timeout_ms: Annotated[int, bounded(100, HOUR)] = 6_000
    """A group member that sends no heartbeat for this long loses its partitions."""
    poll_interval_ms: Annotated[int, bounded(1, 60_000)] = 20
    """How often a waiting consumer checks for new records."""
    busy_timeout_ms: Annotated[int, bounded(0, HOUR)] = 10_000
    """How long a write waits for a write of another process."""
    synchronous: Literal["full", "normal"] = "full"
    """`full`: an acknowledged record survives a power cut. `normal`: it survives a crash of any process."""


class KafkaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Kafka transport. docs/kafka.md describes connections; names are those of Kafka."""

    bootstrap: tuple[str, ...] = ("localhost:9092",)
    """`host:port` of some brokers. The client learns the others from the first that answers."""
    client_id: str = "prela-stream"
    """Name of this process in the logs and quotas of the brokers."""
    rack: str | None = None
    """Rack (zone) of this process: it reads from the replica in the same one."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How brokers are reached: with TLS (SSL), with a login (SASL), both or neither."""
    ssl_cafile: str | None = None
    """PEM file of the authorities that sign the brokers' certificates; None: those of the system."""
    ssl_certfile: str | None = None
    """PEM file of this client's certificate."""
    ssl_keyfile: str | None = None
    """PEM file of its key; None: it is in `ssl_certfile`."""
    ssl_password: str | None = None
    """The password of the key. Never shown."""
    ssl_check_hostname: bool = True
    """Whether the certificate of a broker must name its host."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """How this process logs in."""
    sasl_username: str | None = None
    """The user of PLAIN and SCRAM."""
    sasl_password: str | None = None
    """The password of PLAIN and SCRAM. Set the variable rather than the file. Never shown."""
    sasl_password_file: str | None = None
    """A file with the password. It is read at each connection; one trailing line break is removed."""
    token_provider: str | None = None
    """`module:name` of a function without arguments, async or not, that returns a token for OAUTHBEARER (AWS MSK IAM too)."""
    replication: Annotated[int, bounded(1, 1_000, "replicas")] | None = None
    """Replicas of the topics that `topics create` creates; None: 3, or the number of brokers if that is less."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    """How records are compressed."""
    connect_timeout_ms: Annotated[int, bounded(1, HOUR)] = 10_000
    """Longest time to find a broker, log in and open a producer or writer."""
    request_timeout_ms: Annotated[int, bounded(1, HOUR)] = 20_000
    """Longest time of a request to a broker, retries included."""
    delivery_timeout_ms: Annotated[int, bounded(1, 24 * HOUR)] = 60_000
    """How long a send is tried. After that, the records may or may not be stored."""
    transaction_timeout_ms: Annotated[int, bounded(1_000, 24 * HOUR)] = 60_000
    """Longest time that a transaction left open blocks readers. A commit may take five sixths of it."""
    session_timeout_ms: Annotated[int, bounded(100, HOUR)] = 10_000
    """A group member that sends no heartbeat for this long loses its partitions. Brokers refuse less than 6,000 by default."""
    group_instance_id: str | None = None
    """Static membership (`group.instance.id`): a fixed id, unique per process, so that a restart causes no rebalance."""
    rebalance_timeout_ms: Annotated[int, bounded(1, HOUR)] = 60_000
    """How long the members of a group may take to rejoin in a rebalance."""
    fetch_bytes: Annotated[int, bounded(1_024, (1 << 31) - 1)] = 8 << 20
    """Most bytes of a fetch; a single larger record is fetched nevertheless."""
    partition_fetch_bytes: Annotated[int, bounded(1_024, (1 << 31) - 1)] = 1 << 20
    """Most bytes of a fetch from one partition."""
    max_batch_bytes: Annotated[int, bounded(1 << 20, (1 << 31) - 1)] = 32 << 20
    """Most bytes of a batch of records that is fetched, decompressed. A larger one is poison and is not read. A consumer may hold
    one such batch for each of its partitions."""
    extra: dict[str, Any] = {}
    """Further keyword arguments for all clients of aiokafka, such as `metadata_max_age_ms`. Values are never shown."""
    producer_extra: dict[str, Any] = {}
    """As `extra`, for producers only."""
    consumer_extra: dict[str, Any] = {}
    """As `extra`, for consumers only."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a setting and of what is wrong with it beyond its type."""
        if not self.bootstrap:
            yield "bootstrap", "expected host:port of at least one broker, got none"
        for server in self.bootstrap:
            found = _ADDRESS.fullmatch(server)
            if found is None or int(found["port"] or 9_092) not in range(1, 65_536):
                yield "bootstrap", f"expected host:port in kafka.bootstrap, got {shown_address(server)}"

    def __repr__(self) -> str:
        shown = (
            f"{name}={'<hidden>' if name in _SECRETS else without_user_info(repr(value))}"
            for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True)
            if (value := getattr(self, name)) not in (default, {})
        )
        return f"KafkaOptions({', '.join(shown)})"


def shown_address(server: str) -> str:
    """A bootstrap server as an error shows it. A server has no user, so everything before an `@` may be a credential."""
    return show(f"{HIDDEN}@{server.rpartition('@')[2]}" if "@" in server else server)


_SECRETS = frozenset({"ssl_password", "sasl_password", "extra", "producer_extra", "consumer_extra"})
