"""MQTT, with paho-mqtt and quality of service 0."""

import socket
import threading
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from children.ends import base

__all__ = ["Receiver", "Sender"]

_TOPIC = "1b/viirs/npp"


def _connected(address, on_connect=None, on_message=None):
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_message = on_connect, on_message
    place = urlsplit(address)
    client.connect(place.hostname, place.port)
    client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a message may wait for 40 ms
    return client


class Sender(base.JSONSender):
    """A client that writes to its socket itself, which saves a thread."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self._client = _connected(address)
        while not self._client.is_connected():
            self._client.loop(0.1)

    def send(self, frame):
        self._client.publish(_TOPIC, frame)

    def flush(self):
        while self._client.want_write():
            self._client.loop(0.01)

    def close(self):
        self._client.disconnect()


class Receiver(base.PushedReceiver):
    """A client with a callback."""

    def __init__(self, addresses):
        super().__init__()
        ready = threading.Event()
        self._client = _connected(
            addresses[0],
            on_connect=lambda client, *_: client.subscribe(_TOPIC),
            on_message=lambda client, data, message: self.take(message.payload),
        )
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.loop_start()
        ready.wait(10)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()
