"""How numbers, times and foreign text are written."""

import json
import time

import pytest

from prela_stream.cli import formats
from prela_stream.errors import ConfigurationError

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "open"), (0, "0 µs"), (870_000, "870 µs"), (999_499, "999 µs"), (999_500, "1 ms"), (12_400_000, "12 ms"),
        (999_500_000, "1.00 s"), (3_420_000_000, "3.42 s"), (59_999_000_000, "1 m 00 s"), (125 * SECOND, "2 m 05 s"),
        (3_599_600_000_000, "1 h 00 m"), (11_520 * SECOND, "3 h 12 m"), (187_200 * SECOND, "2 d 04 h"),
    ],
)  # fmt: skip
def test_durations(ns: int | None, text: str) -> None:
    assert formats.duration(ns) == text


def test_counts_tokens_and_cost() -> None:
    assert [formats.count(n) for n in (0, 950, 999, 1000, 12_345, 999_949, 999_950, 4_100_000, 2_500_000_000)] == [
        "0", "950", "999", "1.0k", "12.3k", "999.9k", "1.0M", "4.1M", "2.5G",
    ]  # fmt: skip
    assert formats.tokens(1200, 300) == "1.2k → 300"
    assert formats.tokens(0, 0) == ""
    assert [formats.cost(usd) for usd in (None, 0.0, 0.0123, 12.3)] == ["", "$0.00", "$0.0123", "$12.30"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"), ("a\nb\tc", "a b c"), ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("\x9b2Jx", "x"), ("bell\x07", "bell\\x07"), ("\x1bPq#0\x1b\\sixel", "sixel"), ("\x1bcreset", "reset"), ("a\x1b", "a"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"), ("\ud800", "\\ud800"), ("👩\u200d💻 ü 漢", "👩\u200d💻 ü 漢"),
        ("\x1b[31", "31"), ("ad\u200bmin", "ad\\u200bmin"), ("ad\u200dmin", "ad\\u200dmin"),
        ("a\u00adb\ufeff", "a\\xadb\\ufeff"),
        ("x\ufe0f ❤\ufe0f", "x\\ufe0f ❤\ufe0f"), ("\U000e0041", "\\U000e0041"), ("a\u3164\u2800", "a\\u3164\\u2800"),
    ],
)  # fmt: skip
def test_foreign_text_is_made_safe(text: str, safe: str) -> None:
    assert formats.clean(text) == safe


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert formats.clean("a\r\nb\n\tc\x00", lines=True) == "a\nb\n\tc\\x00"


def test_json_holds_the_same_text_without_acting_on_a_terminal() -> None:
    value = {"text": "\x1b[2J \x7f \x9b \u202e \u2028 \U000e0041 é 漢"}
    text = formats.to_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("\x1b\x7f\x9b\u202e\u2028\U000e0041")
    assert "é 漢" in text


def test_times_are_read() -> None:
    assert [formats.milliseconds(text) for text in ("250ms", "1.5s", "2m", "1 h", "7d")] == [
        250, 1500, 120_000, 3_600_000, 604_800_000,
    ]  # fmt: skip
    now = 1_790_000_000 * SECOND
    assert formats.since("15m", now) == now - 900 * SECOND
    assert formats.since("2026-01-01T00:00:00+00:00", now) == 1_767_225_600 * SECOND
    assert formats.since("2026-11-27 10:00", now) == formats.since("2026-11-27T10:00:00", now)
    assert formats.since("36500d", now) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5m",
        "99999-01-01",
        "15",
        "1e3s",
        "inf",
        "nan",
        "٣s",
        "9999-01-01",
        "1969-12-31",
        "20261127",
        "2026-W47",
        "10:00",
        "2026-11-27T10",
        "11/12/2026",
        "1h30m",
    ],  # each may be taken for something else
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a time is a duration ago with a unit"):
        formats.since(text, 1_790_000_000 * SECOND)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be changed")
def test_a_local_time_that_occurs_twice_or_never_needs_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # Berlin, without a zone file
    time.tzset()
    try:
        for text in ("2026-10-25T02:30", "2026-03-29T02:30"):
            with pytest.raises(
                ConfigurationError, match="occurs twice or never, because the clocks change; add its zone"
            ):
                formats.since(text, 0)
        assert formats.since("2026-10-25T02:30+02:00", 0) == 1_792_888_200 * SECOND
        assert formats.since("2026-10-25T04:00", 0) == formats.since("2026-10-25T03:00Z", 0)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "30", "1e3s", "inf", "-1s", "1 week", "36501d", "9" * 400 + "d", "0x10s"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a duration is"):
        formats.milliseconds(text)
