"""Ports of brokers of one's own: drawn by several processes at once, and kept while a broker is down."""

import pytest

from deploy.kafka import settings


def test_a_claimed_port_is_drawn_by_nobody_else_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = settings.claim_ports(1)
    (port,) = claims
    try:
        monkeypatch.setattr(settings, "PORTS", range(port, port + 1))
        with pytest.raises(OSError, match="came 0"):
            settings.free_ports(1)
        with pytest.raises(OSError, match="came 0"):
            settings.claim_ports(1)
    finally:
        settings.release(claims)
    assert settings.free_ports(1) == [port]
