"""Logins by token (OAUTHBEARER): each login asks the token provider, and a refused token is an error.

A broker refuses a token with a challenge. aiokafka treats the challenge as success: its clients would send requests, fail to
read the answers and retry without end.
"""

import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from prela_stream.errors import ConfigurationError


class TokenProvider(AbstractTokenProvider):
    """Calls the function that `KafkaOptions.token_provider` names, for each login. One that is not async runs in a thread."""

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            msg = f"kafka.token_provider: expected module:name of a function, got {name!r}: {error}"
            raise ConfigurationError(msg) from error
        if not callable(function):
            msg = f"kafka.token_provider: expected module:name of a function, got {name!r}, a {type(function).__name__}"
            raise ConfigurationError(msg)
        self._name = name
        self._function: Callable[[], str | Awaitable[str]] = function

    async def token(self) -> str:
        """A valid token. Raises SaslAuthenticationFailed without the message of the function, which may contain a secret."""
        try:
            if inspect.iscoroutinefunction(self._function):
                token: Any = await self._function()
            else:
                token = await anyio.to_thread.run_sync(self._function, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - a function of the user; what it raises becomes an error of the login
            msg = f"the token provider {self._name} raised {type(error).__name__}; call it in a Python shell to see the reason"
            raise SaslAuthenticationFailed(msg) from None
        if not isinstance(token, str) or not token:
            came = "an empty string" if token == "" else f"a {type(token).__name__}"
            msg = f"the token provider {self._name} returned {came}, expected a token"
            raise SaslAuthenticationFailed(msg)
        return token


class _Checked(conn.OAuthAuthenticator):
    """For clients with our TokenProvider: fails if the broker answers a token with a challenge (RFC 7628, 3.2.2)."""

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """The next step of the login."""
        if payload and self._token_sent and isinstance(self._sasl_oauth_token_provider, TokenProvider):
            msg = f"the token was refused ({_status(payload)})"
            raise SaslAuthenticationFailed(msg)
        step: Callable[[bytes | None], Awaitable[tuple[bytes, bool] | None]] = super().step
        return await step(payload)


class _Challenge(msgspec.Struct):
    status: str = "no reason was given"


def _status(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=_Challenge).status
    except msgspec.DecodeError:
        return _Challenge().status


def check_token_answers() -> None:
    """Make aiokafka check the broker's answer to a token. A second call changes nothing."""
    setattr(conn, "OAuthAuthenticator", _Checked)  # noqa: B010 - replaces a class of that module
