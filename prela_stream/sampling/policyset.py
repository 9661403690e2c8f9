"""A policy set: the policies that decide together, how their votes are combined, and the version that decisions name.

The format of policy files, and what runs without one, is written down in docs/policies.md.
"""

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from prela_stream.sampling.policy import Policy
from prela_stream.sampling.policyfile import Mode, read_policy_file


class PolicySet(msgspec.Struct, frozen=True, kw_only=True):
    """Policies in order, and how their votes are combined."""

    mode: Mode = Mode.ANY
    default: float = 1.0
    """Mode `first_match`: the probability where no policy matches."""
    policies: Sequence[Policy]
    version: str
    """16 hex digits of a hash over the settings; comments, spacing and explicit defaults do not change it."""
    source: str
    """Where it was read from, for messages."""


def policy_set(policies: Sequence[Policy], *, mode: Mode = Mode.ANY, default: float = 1.0, source: str) -> PolicySet:
    """A policy set of policies made in code."""
    content = [mode, default if mode is Mode.FIRST_MATCH else None, *(_content(policy) for policy in policies)]
    version = blake2b(msgspec.json.encode(content, order="sorted"), digest_size=8).hexdigest()
    return PolicySet(mode=mode, default=default, policies=tuple(policies), version=version, source=source)


def load_policies(text: str, *, source: str) -> PolicySet:
    """The policy set of a policy file.

    Args:
        text: The TOML text of the file.
        source: Its path, for error texts.

    Raises:
        ConfigurationError: With every mistake in the file, each with its path.
    """
    found = read_policy_file(text, source)
    return policy_set(found.policies, mode=found.mode, default=found.default, source=source)


def _content(policy: Any) -> Any:
    """The settings of a policy that are not defaults; of one that is no Struct its class and name, all that is known."""
    if not isinstance(policy, msgspec.Struct):
        return [f"{type(policy).__module__}.{type(policy).__qualname__}", policy.name]
    settings = {field.name: (field, getattr(policy, field.name)) for field in msgspec.structs.fields(policy)}
    explicit = {
        name: [_content(part) for part in value] if name == "policies" else value
        for name, (field, value) in settings.items()
        if value != field.default
    }
    return [str(policy.__struct_config__.tag), explicit]


DEFAULT_TEXT: Final = """\
# Used without a policy file.
mode = "any"

[[policy]]              # every trace in which something failed, or whose process died
name = "errors"
type = "status"
statuses = ["ERROR"]

[[policy]]              # every trace that kept someone waiting
name = "slow"
type = "latency"
min_ms = 30_000

[[policy]]              # half of those in which something was cancelled
name = "cancelled"
type = "status"
statuses = ["CANCELLED"]
probability = 0.5

[[policy]]              # a tenth of all others, to know what is normal
name = "rest"
type = "probabilistic"
probability = 0.1
"""


@cache
def default_policies() -> PolicySet:
    """The policy set that is used without a policy file."""
    return load_policies(DEFAULT_TEXT, source="the built-in policies")


KEEP_ALL_TEXT: Final = """\
[[policy]]              # every trace, so that a first look shows what was written
name = "all"
type = "always"
"""


@cache
def keep_all_policies() -> PolicySet:
    """The policy set of `prela-stream dev` without a policy file."""
    return load_policies(KEEP_ALL_TEXT, source="the built-in policy of `prela-stream dev`: keep every trace")
