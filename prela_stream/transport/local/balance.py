"""The assignment of partitions to the members of a group. Pure: each member computes it and gets the same result."""

from collections.abc import Mapping


def balance(
    members: Mapping[str, frozenset[str]], partitions: Mapping[int, str], owners: Mapping[int, str]
) -> dict[int, str]:
    """A fair share for each member, with as few moves as possible.

    Args:
        members: Live members and the topics that each reads.
        partitions: Ids of the partitions and the topic of each.
        owners: The member that holds each partition now; names that are not in `members` are ignored.

    Returns:
        The member that should hold each partition. Partitions of topics that no member reads are left out. No member has two
        partitions more than another one that reads the topic of one of them.
    """
    wanted: dict[int, str] = {}
    load = dict.fromkeys(members, 0)
    for partition, topic in partitions.items():
        owner = owners.get(partition)
        if owner is not None and topic in members.get(owner, ()):
            wanted[partition] = owner
            load[owner] += 1
    for partition in sorted(partitions.keys() - wanted.keys()):
        able = [member for member, topics in members.items() if partitions[partition] in topics]
        if able:
            taker = min(able, key=lambda member: (load[member], member))
            wanted[partition] = taker
            load[taker] += 1
    while (move := _next_move(members, partitions, wanted, load)) is not None:
        partition, taker = move
        load[wanted[partition]] -= 1
        load[taker] += 1
        wanted[partition] = taker
    return wanted


def _next_move(
    members: Mapping[str, frozenset[str]],
    partitions: Mapping[int, str],
    wanted: Mapping[int, str],
    load: Mapping[str, int],
) -> tuple[int, str] | None:
    """A partition of the most loaded member that can give one, and the least loaded member that can take it."""
    for partition in sorted(wanted, key=lambda id_: (-load[wanted[id_]], wanted[id_], -id_)):
        able = [member for member, topics in members.items() if partitions[partition] in topics]
        taker = min(able, key=lambda member: (load[member], member))
        if load[wanted[partition]] - load[taker] >= 2:
            return partition, taker
    return None
