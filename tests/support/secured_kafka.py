"""A broker that asks who is there: TLS, logins of every kind, and rights. One a run, shared as the plain one is.

    python -m tests.support.secured_kafka FILE

runs it until no process holds a shared lock on FILE; its first line has its listeners and certificates.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.kafka import KafkaCluster, KafkaMissingError, Security, unsigned_token
from deploy.kafka.__main__ import _watch
from deploy.kafka.probe import Acl, create_acls, has_acl
from tests.support.kafka import MISSING, UNHURRIED, answers, run_folder, shared

WORDS = {name: f"{name}-word-4711" for name in ("alice", "bob", "agent", "worker", "sink")}
"""Users and their passwords. Alice may do everything with what begins with a `t`, as every prefix of a test; others nothing."""
CERTIFICATE = "CN=client"
"""Whom the client's certificate is of; may do what alice may."""
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
ACL_SECONDS = 30.0


class Secured(msgspec.Struct, frozen=True, kw_only=True):
    """Its addresses. The plain listener is the operator's: its clients may do everything."""

    plain: str
    ssl: str
    """Asks for a certificate of the client."""
    sasl_plaintext: str
    sasl_ssl: str
    authority: str
    client: str

    def env(self, protocol: str, user: str = "alice", mechanism: str = "PLAIN", **more: str) -> dict[str, str]:
        """The variables of a client that comes by this protocol; `more` in lower case, without `PRELA_KAFKA_`."""
        at = {
            "PLAINTEXT": self.plain,
            "SSL": self.ssl,
            "SASL_PLAINTEXT": self.sasl_plaintext,
            "SASL_SSL": self.sasl_ssl,
        }
        found = {"bootstrap": at[protocol], "security_protocol": protocol}
        if "SSL" in protocol:
            found["ssl_cafile"] = self.authority
        if protocol == "SSL":
            found["ssl_certfile"] = self.client
        if "SASL" in protocol:
            found["sasl_mechanism"] = mechanism
            if mechanism == "OAUTHBEARER":
                found["token_provider"] = "tests.support.secured_kafka:token"
            else:
                found |= {"sasl_username": user, "sasl_password": WORDS[user]}
        return {f"PRELA_KAFKA_{name.upper()}": value for name, value in (found | more).items() if value}

    def allow(self, user: str, resource: str, name: str, *operations: str) -> None:
        """Give a user rights; the broker acts on them when this returns."""
        host, _, port = self.plain.rpartition(":")
        acls = [Acl(user=user, resource=resource, name=name, operation=operation) for operation in operations]
        create_acls(host, int(port), acls)
        deadline = time.monotonic() + ACL_SECONDS
        while not all(has_acl(host, int(port), acl) for acl in acls):
            assert time.monotonic() < deadline, f"the broker does not act on {acls}"
            time.sleep(0.01)


def token() -> str:
    """What a token provider returns: alice's."""
    return unsigned_token("alice")


def refused_token() -> str:
    """A token that no broker takes."""
    return "token-word-4711"


def failing_token() -> str:
    """A token provider that fails, with a secret in its message."""
    raise RuntimeError("token-word-4711 was refused")


def no_token() -> None:
    """A token provider that forgot to return something."""


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The run's broker that asks who is there. Others use it too: take topics and groups of your own (`kafka_prefix`)."""
    with shared(run_folder(tmp_path_factory), "secured", ("tests.support.secured_kafka",), _is_up) as found:
        yield msgspec.json.decode(found, type=Secured)


def _is_up(found: str) -> bool:
    return answers(msgspec.json.decode(found, type=Secured).plain)


def main(users: Path) -> int:
    """Run it; the exit code."""
    security = Security(tls=True, mechanisms=MECHANISMS, users=WORDS, authorizer=True)
    try:
        properties = {"listener.name.ssl.ssl.client.auth": "required", **UNHURRIED}
        cluster = KafkaCluster(security=security, properties=properties)
    except KafkaMissingError as error:
        sys.stderr.write(f"{error}\n")
        return MISSING
    with cluster:
        for user in ("alice", CERTIFICATE):
            for resource in ("topic", "group", "transactional_id"):
                cluster.allow(user, resource, "t*", "all")
        found = {
            "plain": cluster.bootstrap,
            **{name.lower(): cluster.bootstrap_of(name) for name in ("SSL", "SASL_PLAINTEXT", "SASL_SSL")},
            "authority": str(cluster.certificates.authority),
            "client": str(cluster.certificates.client),
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        _watch(cluster, users)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
