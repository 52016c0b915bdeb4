"""Calls of what other programs offer, on an event loop."""

from posttroll.asyncio.rpc.client import Call, Proxy, RemoteMethod, RpcClient
from posttroll.asyncio.rpc.server import CallContext, RpcServer, current_call
from posttroll.errors import CallCancelled, CallInterrupted, MethodNotFound, RemoteError
from posttroll.rpc.serving import public

__all__ = [
    "Call",
    "CallCancelled",
    "CallContext",
    "CallInterrupted",
    "MethodNotFound",
    "Proxy",
    "RemoteError",
    "RemoteMethod",
    "RpcClient",
    "RpcServer",
    "current_call",
    "public",
]
