"""Fair shares of partitions, for any history of a group."""

from hypothesis import given
from hypothesis import strategies as st

from prela_stream.transport.local.balance import balance

TOPICS = ["spans", "state", "sampled"]
members = st.dictionaries(
    st.sampled_from("abcdef"), st.sets(st.sampled_from(TOPICS), min_size=1).map(frozenset), max_size=6
)
partitions = st.dictionaries(st.integers(1, 30), st.sampled_from(TOPICS), max_size=20)
owners = st.dictionaries(st.integers(1, 30), st.sampled_from("abcdefgh"))


@given(members, partitions, owners)
def test_every_partition_that_someone_reads_has_one_taker_who_reads_it(
    members: dict[str, frozenset[str]], partitions: dict[int, str], owners: dict[int, str]
) -> None:
    wanted = balance(members, partitions, owners)
    assert wanted.keys() == {
        id_ for id_, topic in partitions.items() if any(topic in read for read in members.values())
    }
    assert all(partitions[id_] in members[member] for id_, member in wanted.items())


@given(members, partitions, owners)
def test_nobody_holds_two_more_than_another_who_could_have_one_of_them(
    members: dict[str, frozenset[str]], partitions: dict[int, str], owners: dict[int, str]
) -> None:
    wanted = balance(members, partitions, owners)
    load = {member: list(wanted.values()).count(member) for member in members}
    for id_, owner in wanted.items():
        able = [member for member, topics in members.items() if partitions[id_] in topics]
        assert load[owner] - min(load[member] for member in able) < 2


@given(members, partitions, owners)
def test_the_answer_is_stable_and_does_not_depend_on_order(
    members: dict[str, frozenset[str]], partitions: dict[int, str], owners: dict[int, str]
) -> None:
    wanted = balance(members, partitions, owners)
    assert balance(members, partitions, wanted) == wanted
    backwards = dict(reversed(members.items())), dict(reversed(partitions.items())), dict(reversed(owners.items()))
    assert balance(*backwards) == wanted


@given(members, partitions, owners)
def test_members_who_act_one_at_a_time_on_their_own_part_reach_fair_shares(
    members: dict[str, frozenset[str]], partitions: dict[int, str], owners: dict[int, str]
) -> None:
    held = {id_: owner for id_, owner in owners.items() if owner in members and id_ in partitions}
    for _ in range(8):
        for me in sorted(members):
            wanted = balance(members, partitions, held)
            for id_ in partitions:
                if held.get(id_) == me and wanted.get(id_) != me:
                    del held[id_]
                elif id_ not in held and wanted.get(id_) == me:
                    held[id_] = me
    assert held == balance(members, partitions, held)


def test_a_newcomer_takes_no_more_than_its_share() -> None:
    everyone = frozenset({"spans"})
    partitions = dict.fromkeys(range(8), "spans")
    before = {id_: "a" if id_ < 4 else "b" for id_ in partitions}
    after = balance({"a": everyone, "b": everyone, "c": everyone}, partitions, before)
    assert sum(after[id_] != before[id_] for id_ in partitions) == 2
    assert sorted(list(after.values()).count(name) for name in "abc") == [2, 3, 3]
