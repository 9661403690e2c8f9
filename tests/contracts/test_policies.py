"""The contract of policies, over every policy that is registered."""

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given

from prela_stream import sampling
from prela_stream.model.trace import Trace
from prela_stream.sampling.conditions import Condition
from prela_stream.sampling.registry import POLICIES
from tests.contracts.policy_contract import ROWS, TRACES, check_reads, check_votes, policy_of
from tests.support.examples import examples

KINDS = sorted(POLICIES)


def test_every_registered_policy_has_a_row() -> None:
    assert ROWS.keys() == POLICIES.keys(), "a row in tests/contracts/policy_contract.py is missing"


def test_every_policy_is_registered() -> None:
    for module in pkgutil.iter_modules(sampling.__path__):
        importlib.import_module(f"{sampling.__name__}.{module.name}")
    missing = [
        cls.__name__ for cls in subclasses(Condition) if cls.__struct_config__.tag and cls not in POLICIES.values()
    ]
    assert missing == [], "a line in prela_stream/sampling/registry.py is missing"


def subclasses(cls: type[Condition]) -> Iterator[type[Condition]]:
    """All classes below this one that the package defines."""
    for below in cls.__subclasses__():
        if below.__module__.startswith(sampling.__name__):
            yield below
        yield from subclasses(below)


@pytest.mark.parametrize("kind", KINDS)
def test_it_matches_what_it_is_for_and_says_why(kind: str) -> None:
    row, policy = ROWS[kind], policy_of(kind)
    assert (policy.name, policy.type) == ("it", kind)
    vote = policy.vote(row.matching)
    assert (vote.matched, vote.reason) == (True, row.reason)
    if row.other is None:
        assert policy.unconditional
    else:
        assert not policy.vote(row.other).matched


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_its_promises_for_any_trace(kind: str) -> None:
    policy = policy_of(kind)

    @examples(40)
    @given(TRACES)
    def check(trace: Trace) -> None:
        check_votes(policy, trace)
        check_reads(policy, trace)

    check()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_gives_the_same_votes(kind: str, duplicate: Callable[[Condition], Condition]) -> None:
    row, policy = ROWS[kind], policy_of(kind)
    again = duplicate(policy)
    assert (again, again.vote(row.matching)) == (policy, policy.vote(row.matching))
