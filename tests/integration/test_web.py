"""The pages over HTTP: the real application on a real store."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest

from prela_stream.sinks.sqlite.options import SqliteOptions
from prela_stream.sinks.sqlite.reader import SqliteReader
from prela_stream.web import list_page
from prela_stream.web.options import WebOptions
from prela_stream.web.security import HEADERS
from prela_stream.web.server import create_app
from tests.support import page_traces as made
from tests.support.kept import trace_id

CHAT = trace_id(made.CHAT)
DROPPED = trace_id(0x2001)
PAGES = (
    *("/", "/histograms", "/?dropped=1", "/live", "/sessions", "/sessions/view?id=session-7", "/models", "/pipeline"),
    *(f"/traces/{CHAT}{more}" for more in ("", "?view=logical", "/transcript", "/text", "/export")),
    *(f"/traces/{CHAT}/spans/{2:016x}{more}" for more in ("", "?as=json", "?as=plain", "/raw")),
    f"/traces/{DROPPED}",
    f"/diff?a={CHAT}&b={trace_id(made.CHAT_AGAIN)}",
    f"/diff?a={CHAT}",
    f"/diff?a={CHAT}&b={trace_id(made.HOSTILE)}",
    "/live/running",
    *(f"/traces/{trace_id(made.MANY)}{more}" for more in ("", "/rows", "?all=1")),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SqliteOptions:
    import anyio

    options = SqliteOptions(path=str(tmp_path_factory.mktemp("store") / "traces.db"))
    dropped = [made.dropped_decision(0x2001), made.dropped_decision(0x2002)]
    anyio.run(lambda: made.fill(options, made.kept_traces(), dropped))
    return options


def client_of(reader: SqliteReader, **options: Any) -> httpx2.AsyncClient:
    app = create_app(reader, WebOptions(**options))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8787")


@pytest.fixture
async def client(store: SqliteOptions) -> AsyncIterator[httpx2.AsyncClient]:
    async with SqliteReader(store) as reader, client_of(reader) as found:
        yield found


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_answers_with_the_strict_headers(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text[-500:]
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert answer.headers["cache-control"] == "no-store"
    if "text/html" in answer.headers["content-type"]:
        check_markup(answer.text)


@pytest.mark.parametrize("view", ["", "?view=logical"])
async def test_a_long_trace_comes_in_two_parts_that_are_the_whole(client: httpx2.AsyncClient, view: str) -> None:
    path = f"/traces/{trace_id(made.MANY)}"
    first, rest, everything = [
        re.findall(r'<div class="row [^\n]*</div>', (await client.get(f"{path}{more}")).text)
        for more in (view, f"/rows{view}", f"{view}&all=1" if view else "?all=1")
    ]
    assert len(first) == 150
    assert first + rest == everything
    chosen = f"{4_000:016x}"
    assert 'aria-selected="true"' not in (await client.get(f"{path}?span={chosen}")).text
    assert f'id="s{chosen}" aria-selected="true"' in (await client.get(f"{path}/rows?span={chosen}")).text


class _Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))


def check_markup(text: str) -> None:
    """A page loads nothing but files of the package, and has no inline script, handler or style."""
    parser = _Markup()
    parser.feed(text)
    for tag, attributes in parser.elements:
        assert tag not in ("img", "style", "iframe", "object", "embed", "base"), attributes
        assert tag != "script" or attributes["src"].startswith("/static/")
        assert tag != "form" or attributes.get("action", "/").startswith("/")
        assert not [name for name in attributes if name == "style" or name.startswith("on") or "hx-on" in name]
        for name in ("href", "src", "data-hx-get", "data-live"):
            value = attributes.get(name, "/")
            assert value[:1] in "/#?" or (tag == "a" and value.startswith(("http://", "https://"))), value


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/traces/" + "f" * 32, 404),
        ("/traces/..%2F..%2Fetc%2Fpasswd", 404),
        ("/traces/xyz", 404),
        (f"/traces/{CHAT}/spans/{99:016x}", 404),
        (f"/traces/{CHAT}/spans/zz", 404),
        ("/static/../server.py", 404),
        ("/static/%2e%2e%2fserver.py", 404),
        ("/sessions/view?id=none", 404),
        ("/diff?a=../x", 404),
        (f"/diff?a={CHAT}&b={'f' * 32}", 404),
        ("/?sort=best", 400),
        ("/?since=yesterday", 400),
        ("/?after=broken", 400),
        ("/traces/1", 404),
    ],
)
async def test_a_wrong_address_is_explained(client: httpx2.AsyncClient, path: str, status: int) -> None:
    answer = await client.get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]


@pytest.mark.parametrize("number", [made.HOSTILE, made.RIGHT_TO_LEFT, made.MEGABYTE])
@pytest.mark.parametrize("view", ["", "/transcript", "/spans/0000000000000002", "/spans/0000000000000002?as=json"])
async def test_hostile_text_is_escaped_and_visible(client: httpx2.AsyncClient, number: int, view: str) -> None:
    answer = await client.get(f"/traces/{trace_id(number)}{view}")
    assert answer.status_code == 200
    check_markup(answer.text)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b]", answer.text)
    assert len(answer.content) < 1_500_000


async def test_hostile_text_of_every_field_is_escaped_in_every_list(client: httpx2.AsyncClient) -> None:
    for path in (
        "/",
        "/live",
        "/sessions",
        "/models",
        "/pipeline",
        f"/?q={made.MARKUP}",
        f"/sessions/view?id={made.MARKUP}",
    ):
        text = (await client.get(path)).text
        check_markup(text)
        assert "owned" in text or path == "/pipeline", path


async def test_a_filter_in_the_url_narrows_the_list(client: httpx2.AsyncClient) -> None:
    async def ids(query: str) -> set[str]:
        text = (await client.get(f"/?{query}")).text
        return set(re.findall(r'<tr data-href="/traces/([0-9a-f]{32})"', text))

    assert len(await ids("")) == 11
    assert await ids("name=trip&status=error") == {trace_id(made.CHAT_AGAIN)}
    assert await ids("session=session-7") == {CHAT, trace_id(made.CHAT_AGAIN)}
    assert await ids("q=Lisbon") == {CHAT}
    assert await ids("min=24h") == {trace_id(made.TWO_DAYS)}
    assert await ids("dropped=1") == {DROPPED, trace_id(0x2002)}
    assert await ids("model=model-a&attr=user.id%3Du-17") == {CHAT, trace_id(made.CHAT_AGAIN)}


async def test_pages_of_a_list_continue_without_a_gap(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_page, "ROWS", 4)
    seen: list[str] = []
    path = "/?sort=slowest"
    while path:
        text = (await client.get(path)).text
        seen += re.findall(r'<tr data-href="/traces/([0-9a-f]{32})"', text)
        following = re.search(r'rel="next" href="([^"]*)"', text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == len(set(seen)) == 11


async def test_why_a_dropped_trace_was_dropped(client: httpx2.AsyncClient) -> None:
    text = (await client.get(f"/traces/{DROPPED}")).text
    assert "Dropped" in text
    assert "probabilistic: 5 % of all traces" in text
    assert "5 % of such traces are kept" in text


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (made.ROOTLESS, "no root: the span that started this trace was not received"),
        (made.ROOTLESS, "3 spans without their parent"),
        (made.FIVE_ROOTS, "5 roots"),
        (made.LOST, "lost: the heartbeats of its process stopped"),
        (made.OPEN, "open: its root has not ended"),
        (made.TWO_DAYS, "show waits at full length"),
    ],
)
async def test_an_unusual_trace_is_shown_as_what_it_is(client: httpx2.AsyncClient, number: int, expected: str) -> None:
    assert expected in (await client.get(f"/traces/{trace_id(number)}")).text


async def test_a_tool_call_is_beside_its_result_and_history_is_folded(client: httpx2.AsyncClient) -> None:
    text = (await client.get(f"/traces/{CHAT}/spans/{5:016x}")).text
    assert re.search(r'class="call paired".*?Lisbon.*?class="result.*?120 €', text, re.DOTALL)
    assert "1 earlier message<" in text
    assert "<code>120 €</code>" in text


async def test_the_transcript_repeats_no_history(client: httpx2.AsyncClient) -> None:
    text = (await client.get(f"/traces/{CHAT}/transcript")).text
    assert text.count("How much is a trip to") == 1
    assert text.index("How much") < text.index("I look it up.") < text.index("is <code>120 €</code>")


async def test_the_export_is_the_whole_trace(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"/traces/{CHAT}/export")
    assert answer.headers["content-disposition"] == f'attachment; filename="trace-{CHAT}.json"'
    document = answer.json()
    assert len(document["spans"]) == 13
    assert document["decision"]["trace_id"] == CHAT


class TestSecurity:
    async def test_an_unknown_host_is_refused(self, client: httpx2.AsyncClient) -> None:
        for host, status in (("evil.test", 421), ("localhost:9", 200), ("10.1.2.3", 200), ("[::1]:80", 200), ("", 421)):
            assert (await client.get("/", headers={"host": host})).status_code == status, host

    async def test_a_configured_host_is_known(self, store: SqliteOptions) -> None:
        async with SqliteReader(store) as reader, client_of(reader, hosts=("traces.test",)) as client:
            assert (await client.get("/", headers={"host": "traces.test"})).status_code == 200

    async def test_pages_of_other_sites_read_nothing(self, client: httpx2.AsyncClient) -> None:
        embedded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
        framed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
        followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert (await client.get("/", headers=embedded)).status_code == 403
        assert (await client.get("/", headers=framed)).status_code == 403
        assert (await client.get("/", headers=followed)).status_code == 200

    async def test_only_reading_is_possible(self, client: httpx2.AsyncClient) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await client.request(method, "/")).status_code == 405

    async def test_without_the_token_nothing_is_shown(self, store: SqliteOptions) -> None:
        async with SqliteReader(store) as reader, client_of(reader, token="s3cret") as client:
            for path in PAGES:
                answer = await client.get(path, headers={"accept": "text/html"})
                assert answer.status_code == 401, path
                assert "trip" not in answer.text
            assert (await client.get("/", headers={"authorization": "Bearer wrong"})).status_code == 401
            assert (await client.get("/", headers={"authorization": "Bearer s3cret"})).status_code == 200

    async def test_a_browser_logs_in_with_a_cookie_that_is_not_the_token(self, store: SqliteOptions) -> None:
        async with SqliteReader(store) as reader, client_of(reader, token="s3cret") as client:
            refused = await client.post("/login", data={"token": "wrong"})
            assert refused.status_code == 401
            assert "This is not the token" in refused.text
            assert not client.cookies
            accepted = await client.post("/login", data={"token": "s3cret"})
            assert accepted.status_code == 303
            cookie = accepted.headers["set-cookie"]
            assert "s3cret" not in cookie
            assert "HttpOnly" in cookie
            assert "samesite=strict" in cookie.lower()
            assert (await client.get("/")).status_code == 200
            assert (await client.post("/login", content=b"x" * 10_000)).status_code == 413

    def test_another_address_needs_a_token(self) -> None:
        assert WebOptions(listen="0.0.0.0:8787").problems()[0][0] == "listen"
        assert WebOptions(listen="0.0.0.0:8787", token="x").problems() == []
        assert WebOptions(listen="[::1]:8787").problems() == []
        assert WebOptions(listen="nowhere").problems()[0][0] == "listen"
        assert "s3cret" not in repr(WebOptions(token="s3cret"))


async def test_a_missing_store_is_waited_for_and_found(tmp_path: Path) -> None:
    options = SqliteOptions(path=str(tmp_path / "later.db"))
    async with SqliteReader(options) as reader, client_of(reader) as client:
        waiting = await client.get("/")
        assert waiting.status_code == 503
        assert "Waiting for the store" in waiting.text
        assert "data-waiting" in waiting.text
        await made.fill(options, [made.trace(made.CHAT, made.chat(made.CHAT, "Lisbon"), root_name="trip")])
        assert "trip" in (await client.get("/")).text


async def test_a_replaced_store_is_read_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = SqliteOptions(path=str(tmp_path / "traces.db"))
    await made.fill(options, [made.trace(made.CHAT, made.chat(made.CHAT, "Lisbon"), root_name="trip")])
    async with SqliteReader(options) as reader, client_of(reader) as client:
        assert "Lisbon" in (await client.get(f"/traces/{CHAT}/transcript")).text
        for file in tmp_path.iterdir():
            file.unlink()
        for _ in range(3):
            assert (await client.get("/")).status_code == 503
        again = made.trace(made.CHAT_AGAIN, made.chat(made.CHAT_AGAIN, "Porto"), root_name="other")
        await made.fill(options, [again])
        text = (await client.get("/")).text
        assert "other" in text
        assert CHAT not in text
    assert len([record for record in caplog.records if record.getMessage().startswith("web: there is no")]) == 1
