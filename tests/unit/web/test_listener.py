"""The listening sockets of the web page and of the OTLP receiver."""

import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from prela_stream.otlp.server import listening_socket
from prela_stream.web.server import _bound


@pytest.mark.parametrize(
    "listen", [lambda: _bound("127.0.0.1:0", 0), lambda: listening_socket("127.0.0.1", 0, "otlp.listen")]
)
def test_an_answer_does_not_wait_for_the_acknowledgement_of_the_one_before(listen: Callable[[], socket.socket]) -> None:
    with closing(listen()) as listener, closing(socket.create_connection(listener.getsockname())):
        accepted, _ = listener.accept()
        with closing(accepted):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
