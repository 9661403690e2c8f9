"""The way in to a broker, step by step: network, protocol, certificate, version, login. A step that fails says what to do.

aiokafka reports a failed login, a TLS port that is spoken to in plain and a web server alike as a connection that was closed. So
when connecting has failed, and when the doctor asks, the way is gone once more, with a look at each step.
"""

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import aiokafka.errors as kafka
import anyio
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import SaslHandShakeRequest

from prela_stream.errors import ConfigurationError, TransportError
from prela_stream.transport.findings import Finding, ok, wrong
from prela_stream.transport.kafka.connect.arguments import addresses, connection
from prela_stream.transport.kafka.connect.probe import Versions, look, reach, shake_hands, why
from prela_stream.transport.kafka.connect.versions import check_versions
from prela_stream.transport.options import KafkaOptions

STEPS: Final = ("network", "protocol", "certificate", "version", "login")
_STEP_S: Final = 5.0
_MORE_S: Final = 6.0
"""How much longer than `connect_timeout_ms` a start may take, to find out why it failed."""
_CLOSE_S: Final = 0.5
_ILLEGAL_STATE: Final = 34
_OTHER_NAME: Final = (62, 64)
"""What OpenSSL says of a certificate that is of another host, or of another address."""
_NOT_ALLOWED: Final = (
    *(kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError, kafka.ClusterAuthorizationFailedError),
    kafka.TransactionalIdAuthorizationFailed,
)


async def connected(options: KafkaOptions, what: str, start: Callable[[], Awaitable[object]]) -> None:
    """Run `start` within `connect_timeout_ms`. One line says what was expected, what came, and what to do.

    Raises:
        ConfigurationError: this client may not write under its transactional id: trying again would not help.
        TransportError: anything else.
    """
    came = f"no answer within {options.connect_timeout_ms:,} ms (connect_timeout_ms)"
    try:
        with anyio.fail_after(options.connect_timeout_ms / 1000):
            await start()
            return
    except TimeoutError:
        pass
    except _NOT_ALLOWED as error:
        meaning = f"{type(error).__name__}: {said(error)}"
        msg = f"kafka: {what} was refused ({meaning}); allow it, `prela-stream doctor` shows which rights are missing"
        lasting = isinstance(error, kafka.TransactionalIdAuthorizationFailed)
        raise (ConfigurationError if lasting else TransportError)(msg) from error
    except AssertionError:  # aiokafka's, of a broker that has just started and is not yet one of its own cluster
        came = "a cluster that knows of no broker"
    except (KafkaError, OSError) as error:
        came = said(error)
    servers = ", ".join(options.bootstrap)
    with anyio.move_on_after(_MORE_S):
        if (found := await _first_mistake(options)) is not None:
            msg = f"kafka at {servers} ({options.security_protocol}): {found.text}"
            raise TransportError(msg)
    msg = (
        f"kafka at {servers} ({options.security_protocol}): expected a connection for {what}, got {came}: look whether the "
        "brokers are well; `prela-stream doctor` looks further"
    )
    raise TransportError(msg)


async def _first_mistake(options: KafkaOptions) -> Finding | None:
    for host, port in addresses(options):
        async for finding in Entry(options, host, port).walk():
            if finding.state == "wrong":
                return finding
    return None


class Entry:
    """One way in: to the broker at this address, as these options have it."""

    def __init__(self, options: KafkaOptions, host: str, port: int) -> None:
        self._options = options
        self._host = host
        self._port = port
        self._tls = options.security_protocol in ("SSL", "SASL_SSL")
        self._sasl = options.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")
        self._at = f"{host}:{port}"
        self.versions: Versions = {}
        """Which requests the broker knows, as far as the steps have come."""

    async def walk(self) -> AsyncIterator[Finding]:
        """Each step that was gone; the last one may be wrong. Raises ConfigurationError."""
        steps = (self._network, self._protocol, self._certificate, self._version, self._login)
        for name, step in zip(STEPS, steps, strict=True):
            finding = self._broken(name, "none in time")
            try:
                with anyio.move_on_after(_STEP_S):
                    finding = await step()
            except (KafkaError, OSError) as error:  # it was there a moment ago
                finding = self._broken(name, said(error))
            yield finding
            if finding.state == "wrong":
                return

    def _broken(self, name: str, came: str) -> Finding:
        todo = "look whether a firewall stands between, and whether the broker is well"
        return wrong(name, expected=f"an answer of {self._at}", came=came, todo=todo)

    async def open(self) -> Any:
        """A connection of aiokafka, logged in. Raises KafkaError, OSError."""
        return await self._conn(self._options.security_protocol)

    async def _network(self) -> Finding:
        try:
            await reach(self._host, self._port)
        except OSError as error:
            return wrong(
                "network",
                expected=f"a broker at {self._at}",
                came=why(error),
                todo="start it, or correct kafka.bootstrap",
            )
        return ok("network", f"{self._at} can be connected to")

    async def _protocol(self) -> Finding:
        found = await look(self._host, self._port, _STEP_S - 1.0)
        self.versions, speaks = found.versions, found.speaks
        with_sasl = "SASL_" if self._sasl else ""
        if speaks in ("Kafka behind TLS", "TLS"):
            if self._tls:
                return ok("protocol", f"{self._at} speaks TLS")
            todo = (
                f"set kafka.security_protocol to {with_sasl}SSL (PRELA_KAFKA_SECURITY_PROTOCOL), or take the plain port"
            )
            return wrong("protocol", expected=f"plain Kafka at {self._at}", came="TLS", todo=todo)
        if speaks == "Kafka":
            if not self._tls:
                return ok("protocol", f"{self._at} speaks Kafka")
            plain = "SASL_PLAINTEXT" if self._sasl else "PLAINTEXT"
            todo = f"take the port that speaks TLS, or set kafka.security_protocol to {plain} (PRELA_KAFKA_SECURITY_PROTOCOL)"
            return wrong("protocol", expected=f"TLS at {self._at}", came="plain Kafka, without TLS", todo=todo)
        came = "a web server (HTTP)" if speaks == "HTTP" else speaks
        todo = "correct the port in kafka.bootstrap; brokers are often at 9092, or 9093 with TLS"
        return wrong("protocol", expected=f"Kafka at {self._at}", came=came, todo=todo)

    async def _certificate(self) -> Finding:
        if not self._tls:
            return ok("certificate", "none is used: this is not TLS")
        context: ssl.SSLContext = connection(self._options)["ssl_context"]
        try:
            self.versions = await shake_hands(self._host, self._port, context)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in _OTHER_NAME:
                todo = "name the broker in kafka.bootstrap as its certificate does"
            else:
                todo = "set kafka.ssl_cafile to a PEM file of the authority that signed it"
            expected = f"a certificate of {self._at} that can be trusted"
            return wrong("certificate", expected=expected, came=error.verify_message, todo=todo)
        except OSError as error:
            if self._options.ssl_certfile is None:
                came = f"a demand for one of ours, it seems ({why(error)})"
                todo = "set kafka.ssl_certfile, and kafka.ssl_keyfile if the key is in a file of its own"
            else:
                came = why(error)
                todo = "look whether the certificate in kafka.ssl_certfile is of an authority that the broker trusts"
            return wrong("certificate", expected=f"{self._at} to take us as we come", came=came, todo=todo)
        return ok("certificate", "both sides trust each other's")

    async def _version(self) -> Finding:
        return check_versions(self.versions, self._options.compression)

    async def _login(self) -> Finding:
        offered = await self._mechanisms()
        protocol, mechanism = self._options.security_protocol, self._options.sasl_mechanism
        if not self._sasl:
            if offered is None:
                return ok("login", "none is asked for")
            expected = f"no login at {self._at} ({protocol})"
            todo = (
                f"set kafka.security_protocol to SASL_{'SSL' if self._tls else 'PLAINTEXT'}, kafka.sasl_mechanism, and "
                "kafka.sasl_username and sasl_password or token_provider"
            )
            return wrong("login", expected=expected, came=f"a demand for one by {_or(offered)}", todo=todo)
        if offered is None:
            todo = f"take the port that has logins, or set kafka.security_protocol to {protocol.removeprefix('SASL_')}"
            return wrong(
                "login", expected=f"a login at {self._at} ({protocol})", came="a port without logins", todo=todo
            )
        if mechanism not in offered:
            todo = "set kafka.sasl_mechanism to one of those, or enable it on the broker"
            return wrong("login", expected=f"a login by {mechanism}", came=f"one by {_or(offered)}", todo=todo)
        try:
            await _closed(await self.open())
        except (KafkaError, OSError) as error:
            todo = "correct kafka.sasl_username and kafka.sasl_password"
            if mechanism == "OAUTHBEARER":
                todo = f"look what {self._options.token_provider} returns, and which tokens the broker takes"
            return wrong("login", expected=f"the broker to take {self._user()}", came=said(error), todo=todo)
        return ok("login", f"{self._user()} is logged in by {mechanism}")

    def _user(self) -> str:
        return "the token" if self._options.sasl_mechanism == "OAUTHBEARER" else f"user {self._options.sasl_username!r}"

    async def _mechanisms(self) -> list[str] | None:
        """The ways to log in that the broker offers; None: it has no logins."""
        conn = await self._conn("SSL" if self._tls else "PLAINTEXT")
        try:
            answer = await conn.send(SaslHandShakeRequest(self._options.sasl_mechanism))
        finally:
            await _closed(conn)
        return None if answer.error_code == _ILLEGAL_STATE else list(answer.enabled_mechanisms)

    async def _conn(self, protocol: str) -> Any:
        known = inspect.signature(AIOKafkaConnection).parameters
        given = connection(self._options)
        arguments = {name: value for name, value in given.items() if name in known} | {"security_protocol": protocol}
        conn: Any = AIOKafkaConnection(self._host, self._port, **arguments)
        try:
            await conn.connect()
        except BaseException:
            if conn._protocol is not None:  # there is a socket
                await _closed(conn)
            raise
        return conn


async def _closed(conn: Any) -> None:
    """Close a connection of aiokafka and wait until it is: with TLS that is an exchange, and the event loop may end before.

    A broker that takes its time is not waited for: the socket is closed all the same.
    """
    with anyio.CancelScope(shield=True):
        gone = conn.close()
        await asyncio.wait([gone], timeout=_CLOSE_S)
        if not gone.done():
            cut_off(conn)
            await asyncio.wait([gone], timeout=_CLOSE_S)


def cut_off(conn: Any) -> None:
    """Close the socket of a connection of aiokafka, if it has one, in the event loop's next turn, whatever the broker does."""
    transport = getattr(conn._protocol, "_transport", None)  # none before it was opened, and once it is closed
    if transport is not None:
        transport.abort()


def said(error: BaseException) -> str:
    """An error of aiokafka in words: what the broker said, or else what its code means."""
    text = str(error.args[0]) if error.args and isinstance(error.args[0], str) else ""
    if text:
        return text
    return getattr(error, "description", "") or str(error) or type(error).__name__


def _or(names: list[str]) -> str:
    return " or ".join(names)
