"""Reads what is left of a request behind an early answer, as web servers do ("lingering close").

A connection that is closed with something unread is reset, and the reset takes the answer from a
client that still sends: it would see a broken connection instead of the line that says why.
"""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: So long is a client read that goes on sending; then the connection is closed all the same.
LINGER_S = 30.0


class Linger:
    """Around an application: each of its answers arrives, also one to half a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        headers = Headers(scope=scope)
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        # Such a client sends nothing before it is told to, and then it is told no.
        waits = "expect" in headers
        closes = False

        async def receive_and_note() -> Message:
            nonlocal unread, waits
            waits = False
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_and_linger(message: Message) -> None:
            nonlocal closes
            if message["type"] == "http.response.start" and unread:
                closes = True
                MutableHeaders(scope=message)["connection"] = "close"
            if not closes or message["type"] != "http.response.body" or message.get("more_body"):
                return await send(message)
            # All of the answer now; its end, which closes the connection, afterwards.
            await send(message | {"more_body": True})
            with anyio.move_on_after(LINGER_S):
                while unread and not waits:
                    await receive_and_note()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_and_note, send_and_linger)


class Protocol(H11Protocol):
    """uvicorn's, which would begin a second answer where nonsense comes behind the first one."""

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, if nothing is answered yet."""
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
        else:
            super().send_400_response(msg)
