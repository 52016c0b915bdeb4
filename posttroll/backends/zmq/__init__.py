"""ZeroMQ: PUB/SUB for messages, REQ/REP for questions, CURVE for those who need it."""

from posttroll.backends.zmq.context import context, destroy_context, get_context
from posttroll.backends.zmq.keys import generate_keys
from posttroll.backends.zmq.socket import get_tcp_keepalive_options

__all__ = ["context", "destroy_context", "generate_keys", "get_context", "get_tcp_keepalive_options"]
