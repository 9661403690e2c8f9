"""The contract of a transport, to be run over each implementation.

A test module for one gives a fixture `log` (see transport_harness.Log) and a class that inherits `TransportContract`.
"""

from tests.contracts.transport_groups import GroupContract
from tests.contracts.transport_log import LogContract
from tests.contracts.transport_processes import ProcessContract
from tests.contracts.transport_writers import WriterContract


class TransportContract(LogContract, GroupContract, WriterContract, ProcessContract):
    """Everything that the pipeline relies on."""
