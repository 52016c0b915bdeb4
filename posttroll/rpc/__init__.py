"""Calls of what other programs offer, on top of addressed messages."""

from posttroll.errors import CallCancelled, CallInterrupted, MethodNotFound, RemoteError
from posttroll.rpc.client import Call, Proxy, RemoteMethod, RpcClient
from posttroll.rpc.server import CallContext, RpcServer, current_call, public

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
