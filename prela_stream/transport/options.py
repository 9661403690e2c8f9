"""Settings of the transports and of the topics. Imports nothing heavy, so that configuration costs nothing."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from prela_stream.text import show, without_user_info
from prela_stream.validation import HOUR, bounded

CleanupPolicy = Literal["delete", "compact"]
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""What Kafka allows in the names of topics, and of their 249 characters enough for what follows the prefix."""
_ADDRESS = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s/@:,\[\]]+)(?::(?P<port>[0-9]{1,5}))?|[0-9A-Fa-f:.]+", re.ASCII
)


class TopicOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names and sizes of the topics of one prefix. `partitions` is fixed for a prefix: to grow, drain into a new one."""

    prefix: str = "prela"
    partitions: Annotated[int, bounded(1, 10_000, "partitions")] = 4
    """Partitions of `spans`, `state` and `decisions`."""
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
            yield "prefix", f"names of topics begin with it: {expected}, got {show(self.prefix)}"

    @property
    def spans(self) -> str:
        """Topic of the span items."""
        return f"{self.prefix}.spans"

    @property
    def state(self) -> str:
        """Topic of the workers' checkpoints."""
        return f"{self.prefix}.state"

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
        """Topic of what could not be read."""
        return f"{self.prefix}.dlq"


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the local transport."""

    path: str = ".prela/log.db"
    """The SQLite file; its folder is made if it is missing."""
    session_timeout_ms: Annotated[int, bounded(100, HOUR)] = 6_000
    """A group member that sends no heartbeat for this long loses its partitions."""
    poll_interval_ms: Annotated[int, bounded(1, 60_000)] = 20
    """How often a waiting consumer checks for new records."""
    busy_timeout_ms: Annotated[int, bounded(0, HOUR)] = 10_000
    """How long a write waits for another process's write."""
    synchronous: Literal["full", "normal"] = "full"
    """`full`: an acknowledged record survives a power cut. `normal`: it survives a crash of any process."""


class KafkaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Kafka transport. Where a setting has a name in Kafka's own documentation, that page says more."""

    bootstrap: tuple[str, ...] = ("localhost:9092",)
    """`host:port` of some brokers; the rest of the cluster is found through any one of them."""
    client_id: str = "prela-stream"
    """What this process is called in the brokers' logs and quotas."""
    rack: str | None = None
    """Where this process runs, so that it reads from the nearest replica."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    """PEM file of the authorities that the brokers' certificates are checked against; None: those of the system."""
    ssl_certfile: str | None = None
    """PEM file of this client's own certificate."""
    ssl_keyfile: str | None = None
    """PEM file of its key; None: it is in `ssl_certfile`."""
    ssl_password: str | None = None
    """What the key is encrypted with. Never shown."""
    ssl_check_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = None
    """Best given as `PRELA_KAFKA_SASL_PASSWORD`. Never shown."""
    sasl_password_file: str | None = None
    """A file that holds the password, read at each connect; one trailing line break is cut off."""
    token_provider: str | None = None
    """`module:name` of a function without arguments, async or not, that returns a token for OAUTHBEARER (AWS MSK IAM too)."""
    replication: Annotated[int, bounded(1, 1_000, "replicas")] | None = None
    """Replicas of the topics that `topics create` makes; None: 3, or as many as there are brokers."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    connect_timeout_ms: Annotated[int, bounded(1, HOUR)] = 10_000
    """How long finding a broker, logging in and opening a producer or writer may take."""
    request_timeout_ms: Annotated[int, bounded(1, HOUR)] = 20_000
    """How long one question to a broker may take, with its repetitions."""
    delivery_timeout_ms: Annotated[int, bounded(1, 24 * HOUR)] = 60_000
    """How long `Producer.send` tries; then what it sent may or may not be stored."""
    transaction_timeout_ms: Annotated[int, bounded(1_000, 24 * HOUR)] = 60_000
    """How long a transaction that its writer left open blocks readers at most. A commit is given half of it."""
    session_timeout_ms: Annotated[int, bounded(100, HOUR)] = 45_000
    """A group member that was not heard of for so long loses its partitions. Brokers refuse less than 6,000 by default."""
    rebalance_timeout_ms: Annotated[int, bounded(1, HOUR)] = 60_000
    """How long the members of a group may take to join again when its partitions are shared out anew."""
    fetch_bytes: Annotated[int, bounded(1_024, (1 << 31) - 1)] = 8 << 20
    """Bytes that one answer of a broker brings at most; a single larger Record comes all the same."""
    partition_fetch_bytes: Annotated[int, bounded(1_024, (1 << 31) - 1)] = 1 << 20
    """As `fetch_bytes`, for each partition."""
    extra: dict[str, Any] = {}
    """Further keyword arguments of aiokafka's clients, such as `metadata_max_age_ms`."""
    producer_extra: dict[str, Any] = {}
    """As `extra`, for its producers alone."""
    consumer_extra: dict[str, Any] = {}
    """As `extra`, for its consumers alone."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of a setting and of what is wrong with it beyond its type."""
        if not self.bootstrap:
            yield "bootstrap", "expected host:port of at least one broker, got none"
        for server in self.bootstrap:
            found = _ADDRESS.fullmatch(server)
            if found is None or int(found["port"] or 9_092) not in range(1, 65_536):
                yield "bootstrap", f"expected host:port in kafka.bootstrap, got {show(server)}"

    def __repr__(self) -> str:
        shown = (
            f"{name}={'<hidden>' if name in _SECRETS else without_user_info(repr(value))}"
            for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True)
            if (value := getattr(self, name)) not in (default, {})
        )
        return f"KafkaOptions({', '.join(shown)})"


_SECRETS = frozenset({"ssl_password", "sasl_password", "extra", "producer_extra", "consumer_extra"})
