"""Whether a broker knows the requests that this transport and aiokafka ask in."""

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
    (ProduceRequest, 3),  # Records with headers, in transactions
    (FetchRequest, 4),  # the same, of committed transactions alone
    (OffsetRequest, 2),  # where the committed ones end
    (MetadataRequest, 4),  # without creating a topic by asking
    (OffsetCommitRequest, 2),
    (OffsetFetchRequest, 2),
    (FindCoordinatorRequest, 1),  # of a transaction
    *((JoinGroupRequest, 0), (SyncGroupRequest, 0), (HeartbeatRequest, 0), (LeaveGroupRequest, 0)),
    *((InitProducerIdRequest, 0), (AddPartitionsToTxnRequest, 0), (AddOffsetsToTxnRequest, 0), (EndTxnRequest, 0)),
    *((TxnOffsetCommitRequest, 0), (CreateTopicsRequest, 1), (DescribeConfigsRequest, 0)),
)
"""Requests, and the first version of each that will do."""
_ZSTD: Final = {ProduceRequest: 7, FetchRequest: 10}
_CHECKS_TRANSACTIONS: Final = (AddPartitionsToTxnRequest.API_KEY, 4)
"""A broker that knows this keeps transactions from being left open by a Record that comes late (KIP-890, part 1)."""
_KAFKA_4_3: Final = (35, 5)
"""A broker of Kafka 4.3 or newer knows this version of DescribeLogDirs. Of those, 4.3.1 and 4.4.0 were seen to finish what a
killed coordinator had begun to commit without telling the partitions, where clients speak as aiokafka does."""
_SHOWN: Final = 4


def check_versions(versions: Versions, compression: str) -> Finding:
    """What a broker that knows these can be used for."""
    old, new = _lacking(versions, compression)
    if old:
        since = "2.1" if compression == "zstd" else "0.11"
        expected = f"brokers of Kafka {since} or newer (3.6 or newer is recommended)"
        todo = "upgrade the brokers"
        if compression == "zstd" and not _lacking(versions, "lz4")[0]:
            todo += ', or set kafka.compression to "lz4"'
        return wrong("version", expected=expected, came=f"one that is too old: {_list(old)}", todo=todo)
    if new:
        expected = "brokers that know what aiokafka asks in"
        return wrong("version", expected=expected, came=f"one that is too new: {_list(new)}", todo="upgrade aiokafka")
    key, version = _CHECKS_TRANSACTIONS
    if versions.get(key, (0, 0))[1] < version:
        return ok("version", "new enough; Kafka 3.6 or newer is recommended, which lets no transaction hang")
    key, version = _KAFKA_4_3
    if versions.get(key, (0, 0))[1] >= version:
        text = (
            "Kafka 4.3 or newer; 4.3.1 and 4.4.0 can leave a transaction open for ever when a broker restarts as it commits, "
            "4.2 does not; docs/kafka.md says how to find one and end it"
        )
        return unknown("version", text)
    return ok("version", "the broker knows all that it will be asked")


def _lacking(versions: Versions, compression: str) -> tuple[list[str], list[str]]:
    """What the broker does not know yet, and what it knows no more."""
    old, new = [], []
    for request, will_do in _NEEDED:
        least = max(will_do, _ZSTD.get(request, 0)) if compression == "zstd" else will_do
        first, last = versions.get(request.API_KEY, (0, -1))
        ours = [one.API_VERSION for one in request._CLASSES if least <= one.API_VERSION]
        name = request.__name__.removesuffix("Request")
        if last < least:
            old.append(f"{name} up to version {last}, not {least}" if last >= 0 else f"no {name}")
        elif not any(first <= version <= last for version in ours):
            new.append(f"{name} from version {first} on")
    return old, new


def _list(parts: list[str]) -> str:
    more = len(parts) - _SHOWN
    return "; ".join(parts[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
