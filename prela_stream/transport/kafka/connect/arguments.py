"""Converts `KafkaOptions` to the arguments of aiokafka's clients. Each mistake is one line with what to do."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aiokafka.conn import collect_hosts
from aiokafka.protocol.metadata import MetadataRequest

from prela_stream.errors import ConfigurationError
from prela_stream.transport.kafka.connect.extra import check_extra
from prela_stream.transport.kafka.connect.logs import limit_logs
from prela_stream.transport.kafka.connect.tokens import TokenProvider, check_token_answers
from prela_stream.transport.options import KafkaOptions, shown_address

_RESERVED: Final = frozenset(
    {
        *("bootstrap_servers", "client_id", "security_protocol", "ssl_context", "group_id", "group_instance_id"),
        *("sasl_mechanism", "sasl_plain_username", "sasl_plain_password", "sasl_oauth_token_provider"),
        *("acks", "enable_idempotence", "transactional_id", "transaction_timeout_ms", "max_batch_size", "linger_ms"),
        *("isolation_level", "enable_auto_commit", "auto_offset_reset", "partition_assignment_strategy"),
        *("key_serializer", "value_serializer", "key_deserializer", "value_deserializer", "partitioner"),
    }
)
"""Arguments that the guarantees of the transport depend on, or that have a setting in `KafkaOptions`."""


def connection(options: KafkaOptions, **more: Any) -> dict[str, Any]:
    """Keyword arguments of any client of aiokafka. `more` are those of one kind, which `extra` may not replace either.

    Raises ConfigurationError: a file cannot be read, a setting is missing, or `extra` has a wrong or reserved argument.
    """
    limit_logs()
    check_extra(options, _RESERVED)
    addresses(options)
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


def addresses(options: KafkaOptions) -> list[tuple[str, int]]:
    """Host and port of each bootstrap server, in the order of the setting. Raises ConfigurationError."""
    if not options.bootstrap:
        msg = "kafka: expected host:port of at least one broker in kafka.bootstrap, got none"
        raise ConfigurationError(msg)
    found = []
    for server in options.bootstrap:
        try:
            ((host, port, _),) = collect_hosts([server])
        except ValueError:
            host, port = "", 0
        if not host or "/" in host or not 0 < port < 65_536:
            msg = f"kafka: expected host:port in kafka.bootstrap, got {shown_address(server)}"
            raise ConfigurationError(msg)
        found.append((host, port))
    return found


def _ssl_context(options: KafkaOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ssl_cafile)
        context.check_hostname = options.ssl_check_hostname
        if options.ssl_certfile is not None:
            # With a password of None OpenSSL would prompt for one on the terminal.
            context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, options.ssl_password or "")
    except OSError as error:  # ssl.SSLError is one
        files = [
            file and str(Path(file).absolute())
            for file in (options.ssl_cafile, options.ssl_certfile, options.ssl_keyfile)
        ]
        msg = f"kafka: expected PEM files in ssl_cafile, ssl_certfile and ssl_keyfile, got {files}: {error}"
        raise ConfigurationError(msg) from None  # the context of the error could contain the password
    return context


def _sasl(options: KafkaOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {"sasl_mechanism": options.sasl_mechanism}
    if options.sasl_mechanism == "OAUTHBEARER":
        if options.token_provider is None:
            msg = "kafka: OAUTHBEARER needs kafka.token_provider, the module:name of a function that returns a token; none is set"
            raise ConfigurationError(msg)
        check_token_answers()
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
    file = Path(options.sasl_password_file).absolute()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"kafka: sasl_password_file names {file}, which cannot be read: {type(error).__name__}"
        raise ConfigurationError(msg) from None
    return text.removesuffix("\n").removesuffix("\r")


def forbid_topic_creation(client: Any, on_metadata: Callable[[], None] | None = None) -> None:
    """Keep a client from creating topics; call `on_metadata` for each of its metadata requests.

    aiokafka lets the broker create every topic that it asks about, and it refreshes its metadata all the time: a topic that
    is deleted while a client uses it would be created again with the broker's defaults.
    """
    connect = client._get_conn

    async def checked_connection(*arguments: Any, **more: Any) -> Any:
        link = await connect(*arguments, **more)
        if link is not None and "send" not in vars(link):
            send = link.send

            def send_without_creation(request: Any, **more: Any) -> Any:
                if isinstance(request, MetadataRequest):
                    request._allow_auto_topic_creation = False
                    if on_metadata is not None:
                        on_metadata()
                return send(request, **more)

            link.send = send_without_creation
        return link

    client._get_conn = checked_connection
