"""The steps of connecting to a broker: network, protocol, certificate, version, login. A step that fails reports what to do.

aiokafka reports a failed login, a plain connection to a TLS port and a web server in the same way: as a closed connection.
So after a failed connect, and for `prela-stream doctor`, the steps are checked one by one.
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
from prela_stream.transport.kafka.connect.probe import Versions, detect, reach, reason, shake_hands
from prela_stream.transport.kafka.connect.versions import check_versions
from prela_stream.transport.options import KafkaOptions

STEPS: Final = ("network", "protocol", "certificate", "version", "login")
_STEP_S: Final = 5.0
_MORE_S: Final = 6.0
"""How much longer than `connect_timeout_ms` a start may take, to find the reason of a failure."""
_CLOSE_S: Final = 0.5
_ILLEGAL_STATE: Final = 34
_OTHER_NAME: Final = (62, 64)
"""Error codes of OpenSSL for a certificate of another host, or of another address."""
_NOT_ALLOWED: Final = (
    *(kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError, kafka.ClusterAuthorizationFailedError),
    kafka.TransactionalIdAuthorizationFailed,
)


async def connected(options: KafkaOptions, what: str, start: Callable[[], Awaitable[object]]) -> None:
    """Run `start` within `connect_timeout_ms`. The error has what was expected, what was found and what to do, in one line.

    Raises:
        ConfigurationError: this client may not write under its transactional id: a retry would not help.
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
        meaning = f"{type(error).__name__}: {error_text(error)}"
        msg = f"kafka: {what} was refused ({meaning}); allow it; `prela-stream doctor` reports the missing permissions"
        lasting = isinstance(error, kafka.TransactionalIdAuthorizationFailed)
        raise (ConfigurationError if lasting else TransportError)(msg) from error
    except AssertionError:  # aiokafka's: a broker that has just started does not list itself yet
        came = "a cluster that lists no broker"
    except (KafkaError, OSError) as error:
        came = error_text(error)
    servers = ", ".join(options.bootstrap)
    with anyio.move_on_after(_MORE_S):
        if (found := await _first_mistake(options)) is not None:
            msg = f"kafka at {servers} ({options.security_protocol}): {found.text}"
            raise TransportError(msg)
    msg = (
        f"kafka at {servers} ({options.security_protocol}): expected a connection for {what}, got {came}: check that the "
        "brokers run; `prela-stream doctor` checks every step"
    )
    raise TransportError(msg)


async def _first_mistake(options: KafkaOptions) -> Finding | None:
    for host, port in addresses(options):
        async for finding in ConnectionSteps(options, host, port).run():
            if finding.state == "wrong":
                return finding
    return None


class ConnectionSteps:
    """The steps of connecting to the broker at one address."""

    def __init__(self, options: KafkaOptions, host: str, port: int) -> None:
        self._options = options
        self._host = host
        self._port = port
        self._tls = options.security_protocol in ("SSL", "SASL_SSL")
        self._sasl = options.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")
        self._at = f"{host}:{port}"
        self.versions: Versions = {}
        """The requests that the broker knows, once the protocol or certificate check has passed."""

    async def run(self) -> AsyncIterator[Finding]:
        """The finding of each step. It ends after the first that is wrong. Raises ConfigurationError."""
        steps = (self._network, self._protocol, self._certificate, self._version, self._login)
        for name, step in zip(STEPS, steps, strict=True):
            finding = self._failed(name, "no answer in time")
            try:
                with anyio.move_on_after(_STEP_S):
                    finding = await step()
            except (KafkaError, OSError) as error:  # an earlier step could connect
                finding = self._failed(name, error_text(error))
            yield finding
            if finding.state == "wrong":
                return

    def _failed(self, name: str, came: str) -> Finding:
        todo = "check for a firewall between, and that the broker runs"
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
                came=reason(error),
                todo="start the broker, or correct kafka.bootstrap",
            )
        return ok("network", f"{self._at} accepts connections")

    async def _protocol(self) -> Finding:
        found = await detect(self._host, self._port, _STEP_S - 1.0)
        self.versions = found.versions
        with_sasl = "SASL_" if self._sasl else ""
        if found.protocol in ("Kafka behind TLS", "TLS"):
            if self._tls:
                return ok("protocol", f"{self._at} uses TLS")
            todo = (
                f"set kafka.security_protocol to {with_sasl}SSL (PRELA_KAFKA_SECURITY_PROTOCOL), or use the plain port"
            )
            return wrong("protocol", expected=f"plain Kafka at {self._at}", came="TLS", todo=todo)
        if found.protocol == "Kafka":
            if not self._tls:
                return ok("protocol", f"{self._at} answers as Kafka")
            plain = "SASL_PLAINTEXT" if self._sasl else "PLAINTEXT"
            todo = f"use the TLS port, or set kafka.security_protocol to {plain} (PRELA_KAFKA_SECURITY_PROTOCOL)"
            return wrong("protocol", expected=f"TLS at {self._at}", came="plain Kafka, without TLS", todo=todo)
        came = "a web server (HTTP)" if found.protocol == "HTTP" else found.protocol
        todo = "correct the port in kafka.bootstrap; brokers are often at 9092, or 9093 with TLS"
        return wrong("protocol", expected=f"Kafka at {self._at}", came=came, todo=todo)

    async def _certificate(self) -> Finding:
        if not self._tls:
            return ok("certificate", "not used without TLS")
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
                came = f"a closed connection, probably because it requires a client certificate ({reason(error)})"
                todo = "set kafka.ssl_certfile, and kafka.ssl_keyfile if the key is in another file"
            else:
                came = reason(error)
                todo = (
                    "check that an authority which the broker trusts has signed the certificate in kafka.ssl_certfile"
                )
            return wrong("certificate", expected=f"{self._at} to accept this client", came=came, todo=todo)
        return ok("certificate", "both sides trust the other's certificate")

    async def _version(self) -> Finding:
        return check_versions(self.versions, self._options.compression)

    async def _login(self) -> Finding:
        offered = await self._mechanisms()
        protocol, mechanism = self._options.security_protocol, self._options.sasl_mechanism
        if not self._sasl:
            if offered is None:
                return ok("login", "the broker requires none")
            expected = f"no login at {self._at} ({protocol})"
            todo = (
                f"set kafka.security_protocol to SASL_{'SSL' if self._tls else 'PLAINTEXT'}, kafka.sasl_mechanism, and "
                "kafka.sasl_username and sasl_password or token_provider"
            )
            return wrong("login", expected=expected, came=f"a port that requires a login by {_or(offered)}", todo=todo)
        if offered is None:
            todo = f"use the port that has logins, or set kafka.security_protocol to {protocol.removeprefix('SASL_')}"
            return wrong(
                "login", expected=f"a login at {self._at} ({protocol})", came="a port without logins", todo=todo
            )
        if mechanism not in offered:
            todo = "set kafka.sasl_mechanism to one of those, or enable it on the broker"
            return wrong("login", expected=f"a login by {mechanism}", came=f"one by {_or(offered)}", todo=todo)
        try:
            await _close(await self.open())
        except (KafkaError, OSError) as error:
            todo = "correct kafka.sasl_username and kafka.sasl_password"
            if mechanism == "OAUTHBEARER":
                todo = f"check what {self._options.token_provider} returns, and which tokens the broker accepts"
            return wrong("login", expected=f"the broker to accept {self._user()}", came=error_text(error), todo=todo)
        return ok("login", f"{self._user()} is logged in by {mechanism}")

    def _user(self) -> str:
        return "the token" if self._options.sasl_mechanism == "OAUTHBEARER" else f"user {self._options.sasl_username!r}"

    async def _mechanisms(self) -> list[str] | None:
        """The login mechanisms that the broker offers; None: it has no logins."""
        conn = await self._conn("SSL" if self._tls else "PLAINTEXT")
        try:
            answer = await conn.send(SaslHandShakeRequest(self._options.sasl_mechanism))
        finally:
            await _close(conn)
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
                await _close(conn)
            raise
        return conn


async def _close(conn: Any) -> None:
    """Close a connection of aiokafka and wait until it is closed: TLS exchanges messages, and the event loop may end before.

    If the broker does not answer in time, the socket is closed anyway.
    """
    with anyio.CancelScope(shield=True):
        closing = conn.close()
        await asyncio.wait([closing], timeout=_CLOSE_S)
        if not closing.done():
            abort_connection(conn)
            await asyncio.wait([closing], timeout=_CLOSE_S)


def abort_connection(conn: Any) -> None:
    """Close the socket of a connection of aiokafka, if it has one, in the event loop's next turn, without the broker."""
    transport = getattr(conn._protocol, "_transport", None)  # none before it was opened, and once it is closed
    if transport is not None:
        transport.abort()


def error_text(error: BaseException) -> str:
    """The text of an error of aiokafka: the broker's message, or else the meaning of its code."""
    text = str(error.args[0]) if error.args and isinstance(error.args[0], str) else ""
    if text:
        return text
    return getattr(error, "description", "") or str(error) or type(error).__name__


def _or(names: list[str]) -> str:
    return " or ".join(names)
