"""What keeps a Kafka set-up from working, found by asking and without writing anything.

Checks go from the network up; where one finds a mistake, those that rest on it are skipped and say so.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import aiokafka.errors as kafka
import anyio
import msgspec
from aiokafka.errors import KafkaError
from aiokafka.protocol.coordination import FindCoordinatorRequest

from prela_stream.errors import ConfigurationError, TransportError
from prela_stream.transport.base import TopicPartition, TopicSpec
from prela_stream.transport.findings import CLOCK_S, Finding, Role, mistake, ok, skipped, unknown, wrong, wrong_clock
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.admin.requests import Wire, check
from prela_stream.transport.kafka.admin.topics import Catalog
from prela_stream.transport.kafka.connect.arguments import addresses, connection
from prela_stream.transport.kafka.connect.probe import reach, why
from prela_stream.transport.kafka.connect.steps import STEPS, Entry, said
from prela_stream.transport.kafka.doctor.acls import (
    READ,
    WRITE,
    GroupRights,
    Needs,
    ServiceGroups,
    TopicAnswer,
    TopicRights,
    group_rights,
    needs,
    topic_answers,
)
from prela_stream.transport.options import KafkaOptions, TopicOptions
from prela_stream.transport.topics import check_topics, topic_names

_REACH_S: Final = 3.0
_COMFORT: Final = 32
"""Partitions of a worker that are known to do well."""
_TRANSACTION: Final = 1
_ABOUT_TOPICS: Final = frozenset({0, 3, 17, 29})
"""What a broker says for good: it is there, it is not, it cannot be, this client may not see it."""
_RIGHTS_VERSIONS: Final = {3: 8, 15: 3}


class KafkaDoctor:
    """Looks at one cluster.

    Args:
        options: How to get there.
        topics: The topics that there should be.
        groups: The groups of the services.
        roles: Whose rights this client should have.
        now_ms: This machine's time of day, ms since the epoch.
    """

    def __init__(
        self, options: KafkaOptions, topics: TopicOptions, groups: ServiceGroups, roles: Sequence[Role], now_ms: int
    ) -> None:
        self._options = options
        self._topics = topics
        self._groups = groups
        self._roles = roles
        self._now_ms = now_ms
        self._wire = Wire(options)
        self._catalog = Catalog(self._wire, options)
        self._offsets = Offsets(self._wire, self._catalog)
        self._versions: dict[int, tuple[int, int]] = {}
        self._agent_alone = set(roles) == {"agent"}

    async def findings(self) -> AsyncIterator[Finding]:
        """Each check as it is done."""
        above = ["cluster", "topics", *(f"rights of {_a(role)}" for role in self._roles), "clock"]
        if "worker" in self._roles:
            above.append("connections")
        try:
            connection(self._options)
        except ConfigurationError as error:
            yield mistake("connection", str(error))
            for name in (*STEPS, *above):
                yield skipped(name, "the settings of the connection")
            return
        yield ok("connection", f"{self._options.security_protocol} to {', '.join(self._options.bootstrap)}")
        failed = ""
        for host, port in addresses(self._options):
            entry = Entry(self._options, host, port)
            last = ""
            async for finding in entry.walk():
                yield finding
                last = finding.check if finding.state == "wrong" else ""
            if not last:
                self._versions = entry.versions
                break
            failed = last
            for name in STEPS[STEPS.index(last) + 1 :]:
                yield skipped(name, f"the {last} of {host}:{port}")
        else:
            for name in above:
                yield skipped(name, f"the {failed}")
            return
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._wire.aclose)
            async for finding in self._inside(above):
                yield finding

    async def _inside(self, names: list[str]) -> AsyncIterator[Finding]:
        """The checks that need a login."""
        left = list(names)
        try:
            async for finding in self._asked():
                while left and left[0] != finding.check:
                    left.pop(0)
                yield finding
                if finding.check == "cluster" and finding.state == "wrong":
                    break
            else:
                return
        except (KafkaError, TransportError) as error:
            yield mistake(left[0], said(error))
        for name in left[1:]:
            yield skipped(name, f"the {left[0]}")

    async def _asked(self) -> AsyncIterator[Finding]:
        answer = await self._wire.metadata([])
        yield await self._cluster(answer)
        names = [self._topics.spans] if self._agent_alone else topic_names(self._topics)
        answers = await self._topic_answers(names)
        existing = await self._catalog.specs([name for name in names if answers[name].error == 0], anew=True)
        for finding in self._topic_findings(answers, existing):
            yield finding
        for role in self._roles:
            yield await self._rights(role, answers)
        yield await self._clock(existing)
        if "worker" in self._roles:
            yield self._connections(len(answer.brokers))

    async def _cluster(self, answer: Any) -> Finding:
        """Every broker has to be reachable by the address that it goes by in the cluster, not by bootstrap alone."""
        away: dict[str, str] = {}

        async def visit(host: str, port: int) -> None:
            at = f"{host}:{port}"
            away[at] = "no answer"
            try:
                with anyio.move_on_after(_REACH_S):
                    await reach(host, port)
                    del away[at]
            except OSError as error:
                away[at] = why(error)

        async with anyio.create_task_group() as tasks:
            for _, host, port, _ in answer.brokers:
                tasks.start_soon(visit, host, port)
        if away:
            return wrong(
                "cluster",
                expected="every broker to answer at the address that it advertises",
                came=", ".join(f"{at}: {reason}" for at, reason in sorted(away.items())),
                todo="correct advertised.listeners of the broker, or the network between",
            )
        count = len(answer.brokers)
        return ok(
            "cluster", f"{count} broker{'s' * (count != 1)}, all within reach; {answer.controller_id} is the controller"
        )

    async def _topic_answers(self, names: list[str]) -> dict[str, TopicAnswer]:
        async def attempt() -> dict[str, TopicAnswer]:
            if self._knows(TopicRights):
                found = topic_answers(await self._wire.ask(TopicRights(names)))
            else:
                answer = await self._wire.metadata(names)
                found = {row[1]: TopicAnswer(row[0], None) for row in answer.topics}
            for one in found.values():
                if one.error not in _ABOUT_TOPICS:  # a new topic has no leader for a moment
                    check(one.error)
            return found

        result: dict[str, TopicAnswer] = await self._wire.repeat("asking about topics", attempt)
        return result

    def _knows(self, request: Any) -> bool:
        first, last = self._versions.get(request.API_KEY, (0, -1))
        return first <= _RIGHTS_VERSIONS[request.API_KEY] <= last

    def _topic_findings(self, answers: dict[str, TopicAnswer], existing: dict[str, TopicSpec]) -> list[Finding]:
        hidden = [name for name, answer in answers.items() if answer.error and answer.rights is not None]
        expected, found = self._topics, list[Finding]()
        there = existing.get(expected.spans)
        if self._agent_alone and there is not None and there.partitions != expected.partitions:
            found.append(_other_partitions(expected.partitions, there))
            expected = msgspec.structs.replace(expected, partitions=there.partitions)
        unread = [] if "worker" in self._roles else [name for name, spec in existing.items() if not spec.readable]
        for line in check_topics(expected, existing):
            topic = line.partition(":")[0].removeprefix("topic ")
            if topic in answers and topic not in hidden:
                found.append(unknown("topics", line) if topic in unread else mistake("topics", line))
        if hidden:
            found.append(unknown("topics", f"this client may not see {', '.join(hidden)}"))
        if self._agent_alone:
            return found or [ok("topics", f"{expected.spans} is as it must be")]
        return found or [ok("topics", f"all {len(existing)} of prefix {expected.prefix} are as they must be")]

    async def _rights(self, role: Role, answers: dict[str, TopicAnswer]) -> Finding:
        name, wanted = f"rights of {_a(role)}", needs(role, self._topics, self._groups)
        lacking: list[str] = []
        unsaid: list[str] = []
        missing = False
        for topic, rights in wanted.topics.items():
            has = answers[topic].rights
            if answers[topic].error == kafka.UnknownTopicOrPartitionError.errno:
                missing = True
            elif has is None:
                unsaid.append(f"topic {topic}")
            else:
                lacking += [f"{right} on topic {topic}" for right in rights if right not in has]
        await self._ask_groups(wanted, lacking, unsaid)
        if lacking:
            expected, came = f"the rights of {_a(role)}", f"none to {', '.join(lacking)}"
            todo = "allow them with kafka-acls or where the cluster keeps its rights"
            if len(self._roles) > 1:
                todo += f", or ask for the role that this login is for (--as {role} is one of them)"
            return wrong(name, expected=expected, came=came, todo=todo)
        if unsaid:
            return unknown(name, f"the broker does not say what this client may do with {', '.join(unsaid)}")
        if missing:  # the broker says rights once there is something to have them on
            return skipped(name, "the topics")
        more = (
            ""
            if wanted.transactional_id is None
            else (f"; whether it may Write under transactional ids {wanted.transactional_id}… shows when it starts")
        )
        return ok(name, f"it has them{more}")

    async def _group_rights(self, group: str) -> frozenset[str] | None:
        """The operations on a group that this client is allowed; None if the brokers do not report them."""

        async def describe() -> frozenset[str] | None:
            node = await self._wire.coordinator(group)
            if not self._knows(GroupRights):
                return None
            return group_rights(await self._wire.ask(GroupRights([group]), node=node))

        try:
            found: frozenset[str] | None = await self._wire.repeat(f"asking about group {group}", describe)
        except kafka.GroupAuthorizationFailedError:
            return frozenset()
        return found

    async def _ask_groups(self, wanted: Needs, lacking: list[str], unsaid: list[str]) -> None:
        for group in wanted.groups:
            has = await self._group_rights(group)
            if has is None:
                unsaid.append(f"group {group}")
            elif READ not in has:
                lacking.append(f"{READ} on group {group}")
        if (transactional_id := wanted.transactional_id) is not None:

            async def find() -> None:
                check((await self._wire.ask(FindCoordinatorRequest(f"{transactional_id}0", _TRANSACTION))).error_code)

            try:
                await self._wire.repeat("finding the broker that keeps transactions", find)
            except kafka.TransactionalIdAuthorizationFailed:
                lacking.append(f"{WRITE} on transactional ids {transactional_id}*")

    async def _clock(self, existing: dict[str, TopicSpec]) -> Finding:
        spec = existing.get(self._topics.spans)
        if spec is None:
            return skipped("clock", "the topics")
        late = self._now_ms + round(CLOCK_S * 1000)
        for number in range(spec.partitions):
            place = TopicPartition(spec.name, number)
            if await self._offsets.at(place, late) < await self._offsets.end(place):
                return wrong_clock(
                    expected=f"no Record of {place} to be stamped later than this machine's time",
                    came=f"one that is more than {CLOCK_S:g} s ahead",
                )
        text = f"no Record of {spec.name} is stamped later than this machine's time; --write measures the difference"
        return unknown("clock", text)

    def _connections(self, brokers: int) -> Finding:
        partitions = self._topics.partitions
        text = f"a worker that has all {partitions} partitions opens about {connections(partitions, brokers)} of them"
        if partitions > _COMFORT:
            text += (
                f"; run {-(-partitions // _COMFORT)} workers or more, so that none has more than {_COMFORT} partitions"
            )
        return ok("connections", text)


def connections(partitions: int, brokers: int) -> int:
    """About how many connections a worker opens: a writer a partition, a consumer, a producer, and its questions."""
    each = brokers + (2 if brokers > 1 else 1)
    return partitions * each + 2 * (brokers + 1) + brokers


def _other_partitions(expected: int, spans: TopicSpec) -> Finding:
    text = (
        f"{spans.name} has {spans.partitions} partitions, the settings say {expected}: agents spread over those that there are; "
        "a worker with these settings would not start"
    )
    return ok("topics", text)


def _a(role: str) -> str:
    return f"an {role}" if role == "agent" else f"a {role}"
