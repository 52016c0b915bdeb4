"""Zenoh, from peer to peer."""

import json
import socket

import zenoh

from children.ends import base

__all__ = ["Receiver", "Sender"]

_KEY = "1b/viirs/npp"


def _session(**places):
    config = zenoh.Config()
    config.insert_json5("mode", '"peer"')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("listen/endpoints", json.dumps(places.get("listen", [])))
    config.insert_json5("connect/endpoints", json.dumps(places.get("connect", [])))
    return zenoh.open(config)


class Sender(base.JSONSender):
    """A session that listens, and waits for those who cannot keep up."""

    def __init__(self):
        super().__init__()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"tcp/127.0.0.1:{probe.getsockname()[1]}"
        self._session = _session(listen=[self.address])
        self._publisher = self._session.declare_publisher(_KEY, congestion_control=zenoh.CongestionControl.BLOCK)
        self.send = self._publisher.put

    def close(self):
        self._session.close()


class Receiver(base.PushedReceiver):
    """A session with a callback."""

    def __init__(self, addresses):
        super().__init__()
        self._session = _session(connect=list(addresses))
        self._subscriber = self._session.declare_subscriber(_KEY, lambda sample: self.take(sample.payload.to_bytes()))

    def close(self):
        self._session.close()
