"""Whether a broker knows the requests that this transport and aiokafka send."""

from typing import Any, Final

from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from prela_stream.transport.findings import Finding, ok, unknown, wrong
from prela_stream.transport.kafka.connect.probe import Versions

_NEEDED: Final[tuple[tuple[Any, int], ...]] = (
    (ProduceRequest, 3),  # records with headers, in transactions
    (FetchRequest, 4),  # the same, of committed transactions only
    (OffsetRequest, 2),  # the end of the committed records
    (MetadataRequest, 4),  # without creating the topic
    (OffsetCommitRequest, 2),
    (OffsetFetchRequest, 2),
    (FindCoordinatorRequest, 1),  # of a transaction
    *((JoinGroupRequest, 0), (SyncGroupRequest, 0), (HeartbeatRequest, 0), (LeaveGroupRequest, 0)),
    *((InitProducerIdRequest, 0), (AddPartitionsToTxnRequest, 0), (AddOffsetsToTxnRequest, 0), (EndTxnRequest, 0)),
    *((TxnOffsetCommitRequest, 0), (CreateTopicsRequest, 1), (DescribeConfigsRequest, 0)),
)
"""Requests, and the first sufficient version of each."""
_ZSTD: Final = {ProduceRequest: 7, FetchRequest: 10}
_CHECKS_TRANSACTIONS: Final = (AddPartitionsToTxnRequest.API_KEY, 4)
"""A broker with this version refuses a transactional record outside an open transaction (KIP-890, part 1)."""
_KAFKA_4_3: Final = (35, 5)
"""A broker of Kafka 4.3 or newer knows this version of DescribeLogDirs. 4.3.1 and 4.4.0 were seen to finish the commit of a
killed coordinator without notifying the partitions, if the client uses the protocol versions of aiokafka."""
_SHOWN: Final = 4


def check_versions(versions: Versions, compression: str) -> Finding:
    """Whether this transport can use a broker that knows these versions."""
    old, new = _lacking(versions, compression)
    if old:
        since = "2.1" if compression == "zstd" else "0.11"
        expected = f"brokers of Kafka {since} or newer (3.6 or newer is recommended)"
        todo = "upgrade the brokers"
        if compression == "zstd" and not _lacking(versions, "lz4")[0]:
            todo += ', or set kafka.compression to "lz4"'
        return wrong("version", expected=expected, came=f"one that is too old: {_list(old)}", todo=todo)
    if new:
        expected = "brokers that know the request versions of aiokafka"
        return wrong("version", expected=expected, came=f"one that is too new: {_list(new)}", todo="upgrade aiokafka")
    key, version = _CHECKS_TRANSACTIONS
    if versions.get(key, (0, 0))[1] < version:
        return ok("version", "new enough; Kafka 3.6 or newer is recommended, because it leaves no transaction open")
    key, version = _KAFKA_4_3
    if versions.get(key, (0, 0))[1] >= version:
        text = (
            "Kafka 4.3 or newer; 4.3.1 and 4.4.0 can leave a transaction open for ever if a broker restarts during a commit, "
            "4.2 does not; docs/kafka.md shows how to find and abort it"
        )
        return unknown("version", text)
    return ok("version", "the broker knows all requests that are used")


def _lacking(versions: Versions, compression: str) -> tuple[list[str], list[str]]:
    """Requests for which the broker is too old, and those for which it is too new."""
    old, new = [], []
    for request, sufficient in _NEEDED:
        least = max(sufficient, _ZSTD.get(request, 0)) if compression == "zstd" else sufficient
        first, last = versions.get(request.API_KEY, (0, -1))
        known = [one.API_VERSION for one in request._CLASSES if least <= one.API_VERSION]
        name = request.__name__.removesuffix("Request")
        if last < least:
            old.append(f"{name} up to version {last}, not {least}" if last >= 0 else f"no {name}")
        elif not any(first <= version <= last for version in known):
            new.append(f"{name} from version {first} on")
    return old, new


def _list(parts: list[str]) -> str:
    more = len(parts) - _SHOWN
    return "; ".join(parts[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
