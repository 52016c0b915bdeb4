"""A client of no package, which tells whether it is let in."""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message

from posttroll.backends.zmq.keys import load_public_key, load_secret_key
from tests.fixtures.keys import Keys
from tests.fixtures.waiting import UNIT

_LET_IN = zmq.EVENT_HANDSHAKE_SUCCEEDED
_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_DISCONNECTED
)


def is_let_in(
    address: str,
    keys: Keys | None = None,
    client: str = "client",
    server: str = "server",
    kind: int = zmq.SUB,
    patience: float = 10 * UNIT,
) -> bool:
    """Connect, with CURVE if there are keys, and return whether the other end agrees before patience ends."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        if keys is not None:
            socket.curve_serverkey = load_public_key(keys.public(server))
            socket.curve_publickey, socket.curve_secretkey = load_secret_key(keys.secret(client))
        with socket.get_monitor_socket(_LET_IN | _REFUSED) as monitor:
            socket.connect(address)
            event = recv_monitor_message(monitor)["event"] if monitor.poll(int(patience * 1000)) else None
            socket.disable_monitor()
    return bool(event == _LET_IN)
