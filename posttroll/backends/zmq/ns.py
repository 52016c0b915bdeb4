"""Asking a nameserver over ZeroMQ, by the names that programs for earlier releases use."""

from __future__ import annotations

from posttroll.backends.base import Peer
from posttroll.backends.zmq.requests import ZMQRequests
from posttroll.errors import RequestTimeout
from posttroll.message import Message
from posttroll.protocol.addresses import nameserver_uri
from posttroll.settings import read

__all__ = [
    "create_secure_zmq_nameserver_address",
    "create_unsecure_zmq_nameserver_address",
    "zmq_request_to_nameserver",
]


def create_unsecure_zmq_nameserver_address(nameserver: str) -> str:
    """Return the URI where a nameserver answers without CURVE."""
    return nameserver_uri(nameserver, read("nameserver_port"))


def create_secure_zmq_nameserver_address(nameserver: str) -> str:
    """Return the URI where a nameserver answers with CURVE."""
    return nameserver_uri(nameserver, read("secure_zmq_nameserver_port"))


def zmq_request_to_nameserver(address: str, message: Message, timeout: float) -> Message:
    """Return the nameserver's reply to a message; `RequestTimeout` when there is none within `timeout` seconds."""
    channel = ZMQRequests([Peer(address, read("backend"))])
    try:
        for reply in channel.request(message.encode().encode(), timeout).values():
            return Message.decode(reply)
    finally:
        channel.close()
    raise RequestTimeout(f"nameserver {address} did not answer within {timeout} s")
