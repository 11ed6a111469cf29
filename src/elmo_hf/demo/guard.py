"""What stands before the demo's gradio app: only the page's own requests pass.

    uvicorn.run(Guard(app, host="127.0.0.1"), ws="none")

gradio serves files, uploads, a proxy and an API beside its pages, and answers pages of other websites. The
page needs none of these. A request passes only if it is one that the page itself makes (`PAGE`, `EVENTS`,
`JOIN`), comes from there, names this machine as its Host, and is small. Others get one sentence.
"""

import asyncio
import ipaddress
import json
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

MAX_BODY, MAX_DISCARDED = 1_000_000, 20_000_000  # bytes
BODY_SECONDS = 30  # in which a request must have arrived
FIELDS = {"data", "event_data", "fn_index", "session_hash", "trigger_id"}  # of an event
SESSION = r"[a-z0-9]{1,64}"
PAGE = re.compile(
    r"/|/theme\.css|/favicon\.ico|/static/js/iframeResizer\.contentWindow\.min\.js|/assets(?:/\w[\w.-]*)+"
    rf"|/gradio_api/(?:app_id|heartbeat/{SESSION})",
    re.ASCII,
)
EVENTS, JOIN = "/gradio_api/queue/data", "/gradio_api/queue/join"


class Refusal(Exception):
    """A status and a sentence."""


class Guard:
    """An ASGI app around another one.

    Args:
        app: the gradio app.
        host: the address that the server listens at.
        inputs: for the number of each event of the page, how many values it has.
        space: of a Space, its name on the Web, as the Hub tells by default: it is public, behind a proxy.
    """

    def __init__(self, app: Any, host: str, inputs: Mapping[int, int], space: str | None = None) -> None:
        self.app, self.inputs = app, inputs
        self.space = os.environ.get("SPACE_HOST", "") if space is None else space
        self.names = {host.lower(), "localhost", socket.gethostname().lower()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        try:
            if scope["type"] != "http":
                raise Refusal(403, "the page needs no WebSocket.")
            headers = self._check_sender(scope)
            scope = scope | {"query_string": _checked_query(scope)}
            if scope["path"] == JOIN:
                receive = await self._check_event(headers, receive)
        except Refusal as refusal:
            return await _refuse(scope, send, *refusal.args)
        await self.app(scope, receive, _without_cors(send))

    def _check_sender(self, scope: Any) -> dict[str, str]:
        """The headers of a request that this machine's own page may have sent."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(pairs)
        host = headers.get("host", "")
        if [name for name, _ in pairs].count("host") != 1 or not self._is_own(host):
            raise Refusal(403, "this is not the page's address; open the one that the command printed.")
        own = {host, self.space, headers.get("x-forwarded-host", host)} if self.space else {host}
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] not in own:
            raise Refusal(403, "only the page itself may send this.")
        is_visit = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_visit:
            raise Refusal(403, "only the page itself may ask for this.")
        return headers

    async def _check_event(self, headers: dict[str, str], receive: Any) -> Any:
        """A `receive` for an event that was read and is one of the page's."""
        try:
            body = await asyncio.wait_for(_body(receive), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise Refusal(408, "the request took too long.") from None
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            event = None
        is_json = headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        if not is_json or not _is_event(event, self.inputs):
            raise Refusal(400, "this is no event of the page; load it again.")
        return _replay(body, receive)

    def _is_own(self, host: str) -> bool:
        """Another website's name may be made to lead to this machine, but not an IP address."""
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        if self.space or name in self.names:  # anybody may call a Space, by any name
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _checked_query(scope: Any) -> bytes:
    """The query, which only the stream of events needs."""
    path, method = scope["path"], scope["method"]
    query: bytes = scope["query_string"]
    if method == "GET" and path == EVENTS and re.fullmatch(rf"session_hash={SESSION}".encode(), query):
        return query
    is_page = PAGE.fullmatch(path) and method in ("GET", "HEAD")
    if not is_page and (method, path) != ("POST", JOIN):
        raise Refusal(404, "the page has nothing there.")
    return b""


async def _body(receive: Any) -> bytes:
    """The whole body. One that is too long is read as well: a browser shows no earlier answer."""
    body, size, message = b"", 0, {"more_body": True}
    while message.get("more_body") and size <= MAX_DISCARDED:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        body = body + chunk if size <= MAX_BODY else b""
    if size > MAX_BODY:
        raise Refusal(413, f"the text is too long; the page takes {MAX_BODY:,} bytes.")
    return body


def _is_event(event: Any, inputs: Mapping[int, int]) -> bool:
    """Whether the page sends such an event: the values of its components are numbers and texts, no files."""
    if not isinstance(event, dict) or not set(event) <= FIELDS or not isinstance(event.get("data"), list):
        return False
    number, session, clicked = (event.get(name) for name in ("fn_index", "session_hash", "event_data"))
    if not isinstance(number, int) or inputs.get(number) != len(event["data"]):
        return False
    if not isinstance(session, str) or not re.fullmatch(SESSION, session):
        return False
    if clicked is not None and not isinstance(clicked, dict):
        return False
    values = [*event["data"], *(clicked or {}).values(), event.get("trigger_id")]
    return not any(isinstance(value, list | dict) for value in values)


def _replay(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body that was read, and then what follows it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return messages.pop() if messages else await receive()

    return replay


def _without_cors(send: Any) -> Any:
    """A `send` without the headers by which gradio lets other websites read an answer."""

    async def closed(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, value)
                for name, value in message["headers"]
                if not name.lower().startswith(b"access-control-")
            ]
            message = message | {"headers": headers}
        await send(message)

    return closed


async def _refuse(scope: Any, send: Any, status: int, sentence: str) -> None:
    if scope["type"] != "http":
        return await send({"type": "websocket.close", "code": 1008, "reason": sentence})
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": sentence}).encode()})
