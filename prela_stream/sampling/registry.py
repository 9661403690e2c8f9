"""The policy types of policy files. A new one is one module, one line here and one row in the contract suite."""

from collections.abc import Mapping
from typing import Final

from prela_stream.sampling.algebra import And, Not, Or
from prela_stream.sampling.attribute import Attribute
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.drop import Drop
from prela_stream.sampling.latency import Latency
from prela_stream.sampling.share import Always, Probabilistic
from prela_stream.sampling.status import Status

_CLASSES: Final[tuple[type[Condition], ...]] = (
    Always,
    Probabilistic,
    Status,
    Latency,
    Attribute,
    And,
    Or,
    Not,
    Drop,
)

POLICIES: Final[Mapping[str, type[Condition]]] = {str(cls.__struct_config__.tag): cls for cls in _CLASSES}
"""Policy classes by the `type` in a policy file."""
