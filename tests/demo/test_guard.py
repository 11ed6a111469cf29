"""The demo's server answers its own page and nothing else, over a real connection."""

import asyncio
import importlib.util
import json
import re
import socket
from contextlib import closing
from http.client import HTTPConnection

import pytest

from elmo_hf.demo import guard

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the page needs gradio")
JOIN = "/gradio_api/queue/join"


class Client:
    """Another program, which sends what it likes."""

    def __init__(self, port):
        self.port = port
        config = re.search(r"window\.gradio_config = (\{.*?\});</script>", self.ask("GET", "/")[2])[1]
        self.numbers = {event["api_name"]: event["id"] for event in json.loads(config)["dependencies"]}

    def ask(self, method, path, content=b"", **headers):
        """Status, headers and text of an answer; the path is sent as it is."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            return self._ask(connection, method, path, content, headers)

    def _ask(self, connection, method, path, content, headers):
        connection.putrequest(method, path, skip_host=True)
        headers = {"host": f"127.0.0.1:{self.port}", "content-length": str(len(content))} | headers
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(content)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode("utf-8", "replace")

    def status(self, method, path, content=b"", **headers):
        status, _, text = self.ask(method, path, content, **headers)
        if status >= 400:
            assert json.loads(text)["detail"].endswith(".")
        return status

    def event(self, name, values, **fields):
        event = {"data": values, "event_data": None, "fn_index": self.numbers[name], "session_hash": "s1"}
        return json.dumps(event | fields).encode()

    def join(self, content, **headers):
        return self.status("POST", JOIN, content, content_type="application/json", **headers)

    def call(self, name, values, **fields):
        """The output of an event, or the sentence that refuses it."""
        assert self.join(self.event(name, values, **fields)) == 200
        _, _, text = self.ask("GET", "/gradio_api/queue/data?session_hash=s1")
        messages = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        return next(message["output"] for message in messages if message["msg"] == "process_completed")


@pytest.fixture(scope="module")
def server(site):
    return Client(site.port)


# ---- what is there


@pytest.mark.parametrize("path", ["/", "/?view=settings", "/theme.css", "/favicon.ico", "/gradio_api/app_id"])
def test_the_page_is_there(server, path):
    status, headers, text = server.ask("GET", path)
    assert (status, bool(text)) == (200, True)
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "GET /config",
            "GET /gradio_api/info",
            "GET /gradio_api/openapi.json",
            "GET /openapi.json",
            "GET /docs",
        ),
        *("GET /gradio_api/file=/etc/passwd", "GET /file=/etc/passwd", "GET /gradio_api/file/etc/passwd"),
        *("GET /gradio_api/proxy=https://example.org", "GET /gradio_api/startup-events", "GET /monitoring"),
        *(
            "GET /login",
            "POST /login",
            "GET /gradio_api/runs",
            "GET /gradio_api/deep_link",
            "GET /robots.txt",
        ),
        *("POST /gradio_api/upload", "GET /gradio_api/upload_progress", "POST /gradio_api/component_server"),
        *("POST /gradio_api/run/read", "POST /gradio_api/call/read", "POST /gradio_api/api/read"),
        *("POST /gradio_api/cancel", "POST /gradio_api/reset", "GET /gradio_api/custom_component/a/b/c/d"),
        *("GET /assets/../app.py", "GET /assets/%2e%2e/app.py", "GET /assets/.env", "GET /static/fonts/x"),
        *("GET /assets//etc/passwd", "GET //", "GET /%2fconfig", "GET /theme.css/", "GET /theme.css%0a"),
        *("OPTIONS /gradio_api/queue/join", "GET /gradio_api/queue/join", "PUT /", "DELETE /", "POST /"),
        *("GET /gradio_api/queue/data", "GET /gradio_api/queue/data?session_hash=../x", "TRACE /"),
        *("GET /gradio_api/queue/data?session_hash=a&x=1", "GET /gradio_api/heartbeat/a/b"),
    ],
)
def test_nothing_else_is_there(server, address):
    assert server.status(*address.split()) == 404


def test_a_query_does_not_reach_gradio(server):
    """A deep link names a file."""
    _, _, plain = server.ask("GET", "/")
    assert server.ask("GET", "/?deep_link=../../../etc/passwd")[2] == plain


# ---- who asks


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:{port}"}, 200),
        ({"host": "localhost:{port}", "origin": "http://localhost:{port}"}, 200),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, 200),  # another port, by a tunnel
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"origin": "https://example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://127.0.0.1"}, 403),
        ({"origin": "http://127.0.0.1:{port}.example.org"}, 403),
        ({"host": "example.org:{port}"}, 403),
        ({"host": "example.org", "origin": "http://example.org"}, 403),  # whose address is now this machine's
        ({"host": "127.0.0.1.example.org"}, 403),
        ({"host": "example.org", "x_forwarded_host": "127.0.0.1"}, 403),
        ({"origin": "http://a.org", "x_forwarded_host": "a.org"}, 403),
        ({"host": ""}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),  # another port of this machine
    ],
)
def test_only_the_page_asks(server, headers, status):
    headers = {name: value.format(port=server.port) for name, value in headers.items()}
    assert server.join(server.event("read", ["He sat.", None]), **headers) == status
    assert server.status("GET", "/theme.css", **headers) == status


def test_a_link_from_another_website_opens_the_page(server):
    headers = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert server.status("GET", "/", **headers) == 200
    assert server.join(server.event("read", ["He sat.", None]), **headers) == 403


def answer(headers, messages=(), space=None, **request):
    """The status with which a guard refuses a request, or 200 where the request passes it."""
    sent, messages = [{"status": 200}], list(messages)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""} | request
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers]

    async def passed(*_):
        pass

    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    asyncio.run(guard.Guard(passed, "127.0.0.1", {0: 1}, space)(scope, receive, send))
    answered = sent[1] if len(sent) > 1 else sent[0]
    return answered.get("status") or answered["type"]


def test_a_space_has_any_name():
    """Its proxy may call it by another name than the browser does."""
    origin = ("origin", "https://me-elmo.hf.space")
    for headers in (
        [("host", "10.1.2.3:7860"), origin],
        [("host", "inner")],
        [("host", "inner"), ("x-forwarded-host", "elmo.org"), ("origin", "https://elmo.org")],
    ):
        assert answer(headers, space="me-elmo.hf.space") == 200
    evil = ("origin", "https://evil-elmo.hf.space")
    assert answer([("host", "me-elmo.hf.space"), evil], space="me-elmo.hf.space") == 403
    assert answer([("host", "inner"), origin]) == 403


def test_hosts_of_a_request():
    for host in ("127.0.0.1", "192.168.7.1:80", "[::1]:7860", "LOCALHOST:1", socket.gethostname()):
        assert answer([("host", host)]) == 200, host
    for host in (
        "127.1",
        "2130706433",
        "0x7f.1",
        "localhost.",
        "a@localhost",
        "localhost:80:80",
        "[",
        "١.1.1.1",
    ):
        assert answer([("host", host)]) == 403, host
    assert answer([]) == answer([("host", "localhost"), ("host", "localhost")]) == 403


def test_requests_that_a_server_would_not_pass_on(monkeypatch):
    assert answer([("host", "localhost")], type="websocket") == "websocket.close"
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.01)
    slow = [{"body": b"{", "more_body": True}]
    assert answer([("host", "localhost")], slow, method="POST", path=JOIN) == 408


def test_a_websocket_is_refused(server):
    """The answer is 403 where the server has a library for websockets, else the guard's 404."""
    head = (
        "GET /gradio_api/queue/join HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(64).split()[1] in (b"403", b"404")


# ---- what is sent


def test_a_text_of_a_million_words_is_refused(server):
    event = server.event("read", ["word " * 1_000_000, None])
    assert server.join(event) == 413
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(event[start : start + 65536]), event[start : start + 65536])
        for start in range(0, len(event), 65536)
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST {JOIN} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + chunks + b"0\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "٣"])
def test_lengths_that_are_none(server, length):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            f"POST {JOIN} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        assert connection.recv(64).split()[1] in (b"400", b"413")


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"data": [FILE, None]},
        {"data": [[1], None]},
        {"data": {"a": 1}},
        {"data": ["x"]},
        {"data": ["x"] * 100},
        {"data": None},
        {"event_data": {"word": FILE}},
        {"event_data": [1]},
        {"event_data": "x"},
        {"fn_index": -1},
        {"fn_index": 10**30},
        {"fn_index": "0"},
        {"fn_index": [0]},
        {"fn_index": 0.5},
        {"session_hash": None},
        {"session_hash": "../x"},
        {"session_hash": "a" * 100},
        {"session_hash": ["a"]},
        {"trigger_id": {"a": 1}},
        {"event_id": "x"},
        {"batched": True},
        {"simple_format": True},
    ],
)
def test_events_that_the_page_does_not_send(server, changes):
    assert server.join(server.event("read", ["x", None], **changes)) == 400


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff", b"[]", b"7", b'{"data": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_event(server, content):
    assert server.join(content) == 400
    assert server.status("POST", JOIN, server.event("read", ["x", None]), content_type="text/plain") == 400


TEXT = "He sat on the bank . The bank lent him money ."
VALUES = [None, "bank", 4, "mix", "all words", 2, 1, 1, 1]


def test_values_that_the_page_cannot_have(server, site):
    """One sentence in the page, and no traceback in the terminal."""
    assert "data" in server.call("read", [TEXT, None])
    assert "data" in server.call("show", VALUES)
    wrong = {1: ["other", 5], 2: [99, -1, "x"], 3: ["9", "-1", None, 0], 4: [None, "x"]}
    wrong |= {5: [0, 10**9, "2", None, float("nan")], 6: [-1, 1e308, "x", None, float("inf")]}
    for place, values in wrong.items():
        for value in values:
            output = server.call("show", [*VALUES[:place], value, *VALUES[place + 1 :]])
            assert output["error"].endswith("read the text again."), (place, value)
    for clicked in (None, {}, {"word": -1}, {"word": 10**9}, {"word": "1"}, {"word": 1.5}):
        assert "error" in server.call("pick_occurrence", [None], event_data=clicked)
    assert "error" in server.call("read", [None, None])
    assert "error" in server.call("read", [5, None])
    assert "Traceback" not in site.errors.read_text()


def test_characters_that_hide_or_steer(server):
    output = server.call("read", ["a \ud83d b\u202e c\x1b[2J\r\nd\x00 \U000e0041 bank", None])
    text = json.dumps(server.call("show", [None, None, *VALUES[2:]])) + json.dumps(output, ensure_ascii=False)
    assert not set(text) & set("\ud83d\u202e\x1b\r\x00\U000e0041")
    assert "\ufffd" in text
