"""The bundled model server as the real Anthropic client sees it, in a thread and as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import anthropic
import pytest

from prela_stream.demo.model_server import BEHAVIOURS, serving
from tests.support.processes import DEADLINE

ASK: list[anthropic.types.MessageParam] = [{"role": "user", "content": "What about lithium?"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="demo") as client:
        yield client


def create(client: anthropic.Anthropic, behaviour: str, **more: str) -> anthropic.types.Message:
    headers = {"x-demo-behaviour": behaviour, **more}
    return client.messages.create(model="claude-demo", max_tokens=50, messages=ASK, extra_headers=headers)


def streamed_text(client: anthropic.Anthropic, behaviour: str) -> str:
    headers = {"x-demo-behaviour": behaviour}
    with client.messages.stream(model="claude-demo", max_tokens=50, messages=ASK, extra_headers=headers) as stream:
        return "".join(stream.text_stream)


def test_the_same_answer_comes_whole_and_streamed(client: anthropic.Anthropic) -> None:
    whole = create(client, "normal")
    assert whole.content[0].type == "text"
    assert streamed_text(client, "normal") == whole.content[0].text


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("bad_request", anthropic.BadRequestError),
        ("unauthorized", anthropic.AuthenticationError),
        ("rate_limited", anthropic.RateLimitError),
        ("down", anthropic.InternalServerError),
    ],
)
def test_failures_reach_the_client_as_its_own_errors(
    client: anthropic.Anthropic, behaviour: str, error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error):
        create(client, behaviour)


def test_overloaded_twice_is_survived_by_two_retries_and_not_by_one(client: anthropic.Anthropic) -> None:
    assert create(client.with_options(max_retries=2), "overloaded").stop_reason == "end_turn"
    with pytest.raises(anthropic.InternalServerError) as failure:
        create(client.with_options(max_retries=1), "overloaded")
    assert failure.value.status_code == 529


@pytest.mark.parametrize("behaviour", ["max_tokens", "refusal"])
def test_stop_reasons(client: anthropic.Anthropic, behaviour: str) -> None:
    assert create(client, behaviour).stop_reason == behaviour


def test_streams_break_in_the_ways_that_are_asked_for(client: anthropic.Anthropic) -> None:
    whole = streamed_text(client, "normal")
    truncated = streamed_text(client, "truncated")
    assert whole.startswith(truncated)
    assert len(truncated) < len(whole)
    with pytest.raises(anthropic.APIError):
        streamed_text(client, "stream_error")
    with pytest.raises(Exception, match="peer closed connection"):
        streamed_text(client, "cut")


def test_an_unknown_behaviour_is_answered_with_the_known_ones(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"runaway") as failure:
        create(client, "dance")
    assert all(name in str(failure.value) for name in BEHAVIOURS)


def test_the_model_name_can_choose_the_behaviour(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="claude-demo-bad_request", max_tokens=5, messages=ASK)


def test_as_a_process_it_says_where_it_listens_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "prela_stream.demo.model_server", "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with anthropic.Anthropic(base_url=url, api_key="demo") as client:
            assert create(client, "normal") == create(client, "normal", **{"x-demo-seed": "7"})
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
