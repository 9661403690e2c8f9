"""The checks of `prela-stream doctor` on a Kafka cluster. They write nothing.

They start at the network and end at permissions. If one finds a mistake, the checks that depend on it are skipped and name it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import aiokafka
import aiokafka.errors as kafka
import anyio
import msgspec
from aiokafka.errors import KafkaError
from aiokafka.protocol.coordination import FindCoordinatorRequest

from prela_stream.errors import ConfigurationError, TransportError
from prela_stream.transport.base import TopicPartition, TopicSpec
from prela_stream.transport.findings import (
    CLOCK_S,
    Finding,
    Role,
    mistake,
    ok,
    skipped_after,
    unknown,
    wrong,
    wrong_clock,
)
from prela_stream.transport.kafka.admin.connection import AdminConnection, check
from prela_stream.transport.kafka.admin.offsets import Offsets
from prela_stream.transport.kafka.admin.topics import Topics
from prela_stream.transport.kafka.connect.arguments import addresses, connection
from prela_stream.transport.kafka.connect.probe import reach, reason
from prela_stream.transport.kafka.connect.steps import STEPS, ConnectionSteps, error_text
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
from prela_stream.transport.kafka.private_names import is_tested
from prela_stream.transport.options import AIOKAFKA_TESTED, KafkaOptions, TopicOptions
from prela_stream.transport.topics import check_topics, topic_names

_REACH_S: Final = 3.0
_COMFORT: Final = 32
"""The recommended largest number of partitions per worker."""
_TRANSACTION: Final = 1
_ABOUT_TOPICS: Final = frozenset({0, 3, 17, 29})
"""Error codes of a topic that do not pass: none, it does not exist, its name is invalid, this client may not see it."""
_RIGHTS_VERSIONS: Final = {3: 8, 15: 3}


class KafkaDoctor:
    """Checks one cluster.

    Args:
        options: The connection.
        topics: The expected topics.
        groups: The groups of the services.
        roles: The roles whose permissions this client should have.
        now_ms: The wall clock of this machine, ms since the epoch.
    """

    def __init__(
        self, options: KafkaOptions, topics: TopicOptions, groups: ServiceGroups, roles: Sequence[Role], now_ms: int
    ) -> None:
        self._options = options
        self._topics = topics
        self._groups = groups
        self._roles = roles
        self._now_ms = now_ms
        self._admin = AdminConnection(options)
        self._cluster_topics = Topics(self._admin, options)
        self._offsets = Offsets(self._admin, self._cluster_topics)
        self._versions: dict[int, tuple[int, int]] = {}
        self._agent_alone = set(roles) == {"agent"}

    async def findings(self) -> AsyncIterator[Finding]:
        """Each finding as soon as its check is done."""
        above = ["cluster", "topics", *(f"rights of {_a(role)}" for role in self._roles), "clock"]
        if "worker" in self._roles:
            above.append("connections")
        yield check_aiokafka()
        try:
            connection(self._options)
        except ConfigurationError as error:
            yield mistake("connection", str(error))
            for name in (*STEPS, *above):
                yield skipped_after(name, "connection check")
            return
        yield ok("connection", f"{self._options.security_protocol} to {', '.join(self._options.bootstrap)}")
        failed = ""
        for host, port in addresses(self._options):
            steps = ConnectionSteps(self._options, host, port)
            last = ""
            async for finding in steps.run():
                yield finding
                last = finding.check if finding.state == "wrong" else ""
            if not last:
                self._versions = steps.versions
                break
            failed = last
            for name in STEPS[STEPS.index(last) + 1 :]:
                yield skipped_after(name, f"{last} check of {host}:{port}")
        else:
            for name in above:
                yield skipped_after(name, f"{failed} check")
            return
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._admin.aclose)
            async for finding in self._after_login(above):
                yield finding

    async def _after_login(self, names: list[str]) -> AsyncIterator[Finding]:
        """The checks that require a login."""
        left = list(names)
        try:
            async for finding in self._checks():
                while left and left[0] != finding.check:
                    left.pop(0)
                yield finding
                if finding.check == "cluster" and finding.state == "wrong":
                    break
            else:
                return
        except (KafkaError, TransportError) as error:
            yield mistake(left[0], error_text(error))
        for name in left[1:]:
            yield skipped_after(name, f"{left[0]} check")

    async def _checks(self) -> AsyncIterator[Finding]:
        answer = await self._admin.metadata([])
        yield await self._cluster(answer)
        names = [self._topics.spans] if self._agent_alone else topic_names(self._topics)
        answers = await self._topic_answers(names)
        existing = await self._cluster_topics.specs([name for name in names if answers[name].error == 0], refresh=True)
        for finding in self._topic_findings(answers, existing):
            yield finding
        for role in self._roles:
            yield await self._rights(role, answers)
        yield await self._clock(existing)
        if "worker" in self._roles:
            yield self._connections(len(answer.brokers))

    async def _cluster(self, answer: Any) -> Finding:
        """Every broker has to be reachable at the address that it advertises, not only at that of bootstrap."""
        unreachable: dict[str, str] = {}

        async def visit(host: str, port: int) -> None:
            at = f"{host}:{port}"
            unreachable[at] = "no answer"
            try:
                with anyio.move_on_after(_REACH_S):
                    await reach(host, port)
                    del unreachable[at]
            except OSError as error:
                unreachable[at] = reason(error)

        async with anyio.create_task_group() as tasks:
            for _, host, port, _ in answer.brokers:
                tasks.start_soon(visit, host, port)
        if unreachable:
            return wrong(
                "cluster",
                expected="every broker to answer at the address that it advertises",
                came=", ".join(f"{at}: {text}" for at, text in sorted(unreachable.items())),
                todo="correct advertised.listeners of the broker, or the network between this machine and it",
            )
        count = len(answer.brokers)
        return ok(
            "cluster",
            f"{count} broker{'s' * (count != 1)}, all reachable; broker {answer.controller_id} is the controller",
        )

    async def _topic_answers(self, names: list[str]) -> dict[str, TopicAnswer]:
        async def attempt() -> dict[str, TopicAnswer]:
            if self._knows(TopicRights):
                found = topic_answers(await self._admin.ask(TopicRights(names)))
            else:
                answer = await self._admin.metadata(names)
                found = {row[1]: TopicAnswer(row[0], None) for row in answer.topics}
            for one in found.values():
                if one.error not in _ABOUT_TOPICS:  # a new topic has no leader for a moment
                    check(one.error)
            return found

        result: dict[str, TopicAnswer] = await self._admin.repeat("describing topics", attempt)
        return result

    def _knows(self, request: Any) -> bool:
        first, last = self._versions.get(request.API_KEY, (0, -1))
        return first <= _RIGHTS_VERSIONS[request.API_KEY] <= last

    def _topic_findings(self, answers: dict[str, TopicAnswer], existing: dict[str, TopicSpec]) -> list[Finding]:
        hidden = [name for name, answer in answers.items() if answer.error and answer.rights is not None]
        expected, found = self._topics, list[Finding]()
        spans = existing.get(expected.spans)
        if self._agent_alone and spans is not None and spans.partitions != expected.partitions:
            found.append(_other_partitions(expected.partitions, spans))
            expected = msgspec.structs.replace(expected, partitions=spans.partitions)
        unread = [] if "worker" in self._roles else [name for name, spec in existing.items() if not spec.readable]
        for line in check_topics(expected, existing):
            topic = line.partition(":")[0].removeprefix("topic ")
            if topic in answers and topic not in hidden:
                found.append(unknown("topics", line) if topic in unread else mistake("topics", line))
        if hidden:
            found.append(unknown("topics", f"this client may not see {', '.join(hidden)}"))
        if self._agent_alone:
            return found or [ok("topics", f"{expected.spans} is as expected")]
        return found or [ok("topics", f"all {len(existing)} of prefix {expected.prefix} are as expected")]

    async def _rights(self, role: Role, answers: dict[str, TopicAnswer]) -> Finding:
        name, wanted = f"rights of {_a(role)}", needs(role, self._topics, self._groups)
        lacking: list[str] = []
        unreported: list[str] = []
        missing = False
        for topic, rights in wanted.topics.items():
            has = answers[topic].rights
            if answers[topic].error == kafka.UnknownTopicOrPartitionError.errno:
                missing = True
            elif has is None:
                unreported.append(f"topic {topic}")
            else:
                lacking += [f"{right} on topic {topic}" for right in rights if right not in has]
        await self._ask_groups(wanted, lacking, unreported)
        if lacking:
            expected, came = f"the rights of {_a(role)}", f"none to {', '.join(lacking)}"
            todo = "allow them with kafka-acls or in the access control of the cluster"
            if len(self._roles) > 1:
                todo += f", or check only the role of this login (--as {role}, for example)"
            return wrong(name, expected=expected, came=came, todo=todo)
        if unreported:
            return unknown(name, f"the broker does not report what this client may do with {', '.join(unreported)}")
        if missing:  # a broker reports permissions only on topics that exist
            return skipped_after(name, "topics check")
        more = (
            ""
            if wanted.transactional_id is None
            else (f"; whether it may Write under transactional ids {wanted.transactional_id}… is known once it starts")
        )
        return ok(name, f"complete{more}")

    async def _group_rights(self, group: str) -> frozenset[str] | None:
        """The operations on a group that this client is allowed; None if the brokers do not report them."""

        async def describe() -> frozenset[str] | None:
            node = await self._admin.coordinator(group)
            if not self._knows(GroupRights):
                return None
            return group_rights(await self._admin.ask(GroupRights([group]), node=node))

        try:
            found: frozenset[str] | None = await self._admin.repeat(f"describing group {group}", describe)
        except kafka.GroupAuthorizationFailedError:
            return frozenset()
        return found

    async def _ask_groups(self, wanted: Needs, lacking: list[str], unreported: list[str]) -> None:
        for group in wanted.groups:
            has = await self._group_rights(group)
            if has is None:
                unreported.append(f"group {group}")
            elif READ not in has:
                lacking.append(f"{READ} on group {group}")
        if (transactional_id := wanted.transactional_id) is not None:

            async def find() -> None:
                check((await self._admin.ask(FindCoordinatorRequest(f"{transactional_id}0", _TRANSACTION))).error_code)

            try:
                await self._admin.repeat("finding the coordinator of transactions", find)
            except kafka.TransactionalIdAuthorizationFailed:
                lacking.append(f"{WRITE} on transactional ids {transactional_id}*")

    async def _clock(self, existing: dict[str, TopicSpec]) -> Finding:
        spec = existing.get(self._topics.spans)
        if spec is None:
            return skipped_after("clock", "topics check")
        late = self._now_ms + round(CLOCK_S * 1000)
        for number in range(spec.partitions):
            partition = TopicPartition(spec.name, number)
            if await self._offsets.at(partition, late) < await self._offsets.end(partition):
                return wrong_clock(
                    expected=f"no record of {partition} with a timestamp later than this machine's clock",
                    came=f"one that is more than {CLOCK_S:g} s ahead",
                )
        text = (
            f"no record of {spec.name} has a timestamp later than this machine's clock; --write measures the difference"
        )
        return unknown("clock", text)

    def _connections(self, brokers: int) -> Finding:
        partitions = self._topics.partitions
        text = f"a worker with all {partitions} partitions opens about {connections(partitions, brokers)} connections"
        if partitions > _COMFORT:
            text += (
                f"; run {-(-partitions // _COMFORT)} workers or more, so that none has more than {_COMFORT} partitions"
            )
        return ok("connections", text)


def check_aiokafka(version: str = aiokafka.__version__) -> Finding:
    """Whether this release was tested with the installed aiokafka, whose private names it uses."""
    if is_tested(version):
        return ok("aiokafka", f"{version}, tested with this release")
    text = f"{version} is installed, this release was tested with {AIOKAFKA_TESTED} only: pip install 'aiokafka{AIOKAFKA_TESTED}'"
    return unknown("aiokafka", text)


def connections(partitions: int, brokers: int) -> int:
    """About how many connections a worker opens: for a writer per partition, a consumer, a producer and its requests."""
    each = brokers + (2 if brokers > 1 else 1)
    return partitions * each + 2 * (brokers + 1) + brokers


def _other_partitions(expected: int, spans: TopicSpec) -> Finding:
    text = (
        f"{spans.name} has {spans.partitions} partitions, topics.partitions is {expected}: agents use the partitions that exist; "
        "a worker with these settings would not start"
    )
    return ok("topics", text)


def _a(role: str) -> str:
    return f"an {role}" if role == "agent" else f"a {role}"
