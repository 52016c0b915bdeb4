"""The same as `serve_web`, with FastAPI. Run it by ``uvicorn serve_web_fastapi:app``."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from serve_web import announce, events, lifespan

app = FastAPI(lifespan=lifespan)


@app.post("/messages/{subject:path}", status_code=202)
async def post_message(subject: str, data: dict[str, Any], request: Request) -> dict[str, str]:
    """Answer when the message is published."""
    return await announce(request.state.publisher, subject, data)


@app.get("/messages")
async def get_messages(services: str = "", topic: str = "") -> StreamingResponse:
    """Answer with all that comes."""
    return StreamingResponse(events(services, topic), media_type="text/event-stream")
