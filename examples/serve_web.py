"""Publish what is posted by HTTP, and send messages to browsers as they come. Run it by ``uvicorn serve_web:app``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from posttroll.asyncio.publisher import NoisyPublisher, Publish
from posttroll.asyncio.subscriber import Subscribe
from posttroll.errors import EncodeError
from posttroll.message import Message

SECONDS_BETWEEN_SIGNS_OF_LIFE = 15.0


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Publish for as long as the web server runs."""
    async with Publish("web") as publisher:
        yield {"publisher": publisher}


async def announce(publisher: NoisyPublisher, subject: str, data: Any) -> dict[str, str]:
    """Publish a message about a file; return what is answered."""
    try:
        message = Message(f"/{subject}", "file", data)
        await publisher.send(message)
    except EncodeError as error:
        raise HTTPException(422, str(error)) from error
    return {"published": message.subject}


async def events(services: str, topic: str) -> AsyncIterator[str]:
    """Yield messages as server-sent events, until the browser has gone."""
    async with Subscribe(services, topic, addr_listener=True, timeout=1) as subscriber:
        yield ": connected\n\n"
        async for message in subscriber.recv(timeout=SECONDS_BETWEEN_SIGNS_OF_LIFE):
            yield ": nothing new\n\n" if message is None else f"data: {as_json(message)}\n\n"


def as_json(message: Message) -> str:
    """Return what a browser is told of a message, on one line."""
    return json.dumps({"subject": message.subject, "type": message.type, "data": message.data}, default=str)


async def post_message(request: Request) -> JSONResponse:
    """Answer when the message is published."""
    try:
        data = await request.json()
    except ValueError as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from error
    answer = await announce(request.state.publisher, request.path_params["subject"], data)
    return JSONResponse(answer, status_code=202)


async def get_messages(request: Request) -> StreamingResponse:
    """Answer with all that comes."""
    wanted = events(request.query_params.get("services", ""), request.query_params.get("topic", ""))
    return StreamingResponse(wanted, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/messages/{subject:path}", post_message, methods=["POST"]),
        Route("/messages", get_messages),
    ],
)
