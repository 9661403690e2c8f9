"""From `KafkaOptions` to what aiokafka's clients are given, and from their connect errors to one line that says what to do."""

import importlib
import inspect
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from prela_stream.errors import ConfigurationError, TransportError
from prela_stream.transport.kafka.logs import tame
from prela_stream.transport.options import KafkaOptions

_OURS: Final = frozenset(
    {
        *("bootstrap_servers", "client_id", "security_protocol", "ssl_context", "group_id", "group_instance_id"),
        *("sasl_mechanism", "sasl_plain_username", "sasl_plain_password", "sasl_oauth_token_provider"),
        *("acks", "enable_idempotence", "transactional_id", "transaction_timeout_ms", "max_batch_size", "linger_ms"),
        *("isolation_level", "enable_auto_commit", "auto_offset_reset", "partition_assignment_strategy"),
        *("key_serializer", "value_serializer", "key_deserializer", "value_deserializer", "partitioner"),
    }
)
"""What the promises of the transport rest on, or what has an option of its own."""

_REASON_MS: Final = 3_000


def connection(options: KafkaOptions, **more: Any) -> dict[str, Any]:
    """Keyword arguments of any client of aiokafka; `more` are those of one kind, which `extra` may not replace either.

    Raises ConfigurationError: a file cannot be read, a setting is missing, or `extra` holds what it may not.
    """
    tame()
    refused = sorted(_OURS & {*options.extra, *options.producer_extra, *options.consumer_extra})
    if refused:
        msg = f"kafka: extra may not hold {', '.join(refused)}: the transport relies on it or has a setting of its own for it"
        raise ConfigurationError(msg)
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(options.bootstrap),
        "client_id": options.client_id,
        "request_timeout_ms": options.request_timeout_ms,
        "security_protocol": options.security_protocol,
    }
    if options.security_protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = _ssl_context(options)
    if options.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        arguments |= _sasl(options)
    return arguments | more | options.extra


def _ssl_context(options: KafkaOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ssl_cafile)
        context.check_hostname = options.ssl_check_hostname
        if options.ssl_certfile is not None:
            context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, options.ssl_password)
    except OSError as error:  # ssl.SSLError is one
        files = [options.ssl_cafile, options.ssl_certfile, options.ssl_keyfile]
        msg = f"kafka: expected PEM files in ssl_cafile, ssl_certfile and ssl_keyfile, got {files}: {error}"
        raise ConfigurationError(msg) from None  # a context could show the password
    return context


def _sasl(options: KafkaOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {"sasl_mechanism": options.sasl_mechanism}
    if options.sasl_mechanism == "OAUTHBEARER":
        if options.token_provider is None:
            msg = (
                'kafka: OAUTHBEARER needs token_provider = "module:name", a function that returns a token; none is set'
            )
            raise ConfigurationError(msg)
        return arguments | {"sasl_oauth_token_provider": TokenProvider(options.token_provider)}
    password = _password(options)
    if options.sasl_username is None or password is None:
        missing = "sasl_username" if options.sasl_username is None else "sasl_password (or sasl_password_file)"
        msg = f"kafka: {options.security_protocol} with {options.sasl_mechanism} needs {missing}, which is not set"
        raise ConfigurationError(msg)
    return arguments | {"sasl_plain_username": options.sasl_username, "sasl_plain_password": password}


def _password(options: KafkaOptions) -> str | None:
    if options.sasl_password is not None or options.sasl_password_file is None:
        return options.sasl_password
    try:
        text = Path(options.sasl_password_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"kafka: sasl_password_file names {options.sasl_password_file}, which cannot be read: {type(error).__name__}"
        raise ConfigurationError(msg) from None
    return text.removesuffix("\n").removesuffix("\r")


class TokenProvider(AbstractTokenProvider):
    """Asks the function that `KafkaOptions.token_provider` names for each login; one that is not async runs in a thread."""

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            msg = f'kafka: expected token_provider = "module:name" of a function, got {name!r}: {error}'
            raise ConfigurationError(msg) from error
        self._function: Callable[[], str | Awaitable[str]] = function

    async def token(self) -> str:
        """A token that is good now."""
        if inspect.iscoroutinefunction(self._function):
            token = await self._function()
        else:
            token = await anyio.to_thread.run_sync(self._function)
        return str(token)


async def connected(options: KafkaOptions, what: str, start: Callable[[], Awaitable[object]]) -> None:
    """Run `start` within `connect_timeout_ms`. Raises TransportError, one line: what was expected, what came, what to do."""
    came = f"no answer within {options.connect_timeout_ms:,} ms"
    try:
        with anyio.fail_after(options.connect_timeout_ms / 1000):
            await start()
            return
    except TimeoutError:
        pass
    except KafkaConnectionError:
        came = await _reason(options)  # aiokafka keeps it to its log
    except (KafkaError, OSError) as error:
        came = str(error)
    servers = ", ".join(options.bootstrap)
    msg = (
        f"kafka: expected a broker at {servers} ({options.security_protocol}) for {what}; {came}. Start it, or correct "
        "kafka.bootstrap and the security settings"
    )
    raise TransportError(msg)


async def _reason(options: KafkaOptions) -> str:
    """Why the first of the bootstrap servers cannot be talked to."""
    arguments = connection(options)
    host, port, _ = collect_hosts(arguments.pop("bootstrap_servers"))[0]
    timeout_s = min(options.connect_timeout_ms, _REASON_MS) / 1000
    known = inspect.signature(create_conn).parameters
    try:
        with anyio.fail_after(timeout_s):
            found = await create_conn(host, port, **{name: arguments[name] for name in arguments if name in known})
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except ssl.SSLError as error:
        return f"TLS failed ({error})"
    except (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError) as error:
        return f"the login was refused ({error})"
    except (KafkaError, OSError) as error:
        return str(error)
    found.close()
    return "it answered now, but not a moment ago"
