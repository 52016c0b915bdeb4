"""One end of a conversation, run by the interpreter of the release that it is to speak for.

Called with ``nameserver`` it becomes that program, which may be told a ``--max-age`` in seconds. Otherwise it reads
calls from standard input, one JSON object a line, and answers each with one on standard output, until its input ends.
"""

import base64
import datetime
import importlib.metadata
import json
import logging
import queue
import sys
import time

import posttroll.ns
import posttroll.publisher
from posttroll.listener import ListenerContainer
from posttroll.logger import PytrollFormatter, PytrollHandler
from posttroll.message import Message
from posttroll.publisher import create_publisher_from_dict_config
from posttroll.subscriber import create_subscriber_from_dict_config

_STEP = 0.05


class Peer:
    """What can be called."""

    def __init__(self):
        self._publishers = {}
        self._subscribers = {}
        self._containers = {}

    def version(self):
        return importlib.metadata.version("posttroll")

    def publish(self, **settings):
        publisher = create_publisher_from_dict_config(settings)
        publisher.start()
        self._publishers[settings["name"]] = publisher
        return publisher.port_number

    def send(self, publisher, texts):
        for text in texts:
            self._publishers[publisher].send(text)

    def beat(self, publisher, min_interval):
        self._publishers[publisher].heartbeat(min_interval)

    def stop_publishing(self, publisher):
        self._publishers.pop(publisher).stop()

    def log(self, publisher, level, text):
        if publisher not in self._publishers:
            handler = self._publishers[publisher] = PytrollHandler(publisher)
            handler.setFormatter(PytrollFormatter("%(message)s", "%Y"))
        self._publishers[publisher].handle(logging.LogRecord("chain", level, __file__, 1, text, (), None))

    def subscribe(self, name, **settings):
        self._subscribers[name] = create_subscriber_from_dict_config(settings)

    def receive(self, name, count, timeout):
        found = []
        deadline = time.monotonic() + timeout
        for message in self._subscribers[name].recv(timeout=_STEP):
            if message is not None:
                found.append(described(message))
            if len(found) >= count or time.monotonic() > deadline:
                return found
        return found

    def connections(self, name):
        subscriber = self._subscribers[name]
        next(subscriber.recv(timeout=_STEP))  # released ones follow the nameserver only while they receive
        addresses = subscriber.addresses
        return sorted(address["URI"] if isinstance(address, dict) else address for address in addresses)

    def unsubscribe(self, name):
        self._subscribers.pop(name).stop()

    def listen(self, name, **settings):
        self._containers[name] = ListenerContainer(**settings)

    def take(self, name, timeout):
        try:
            return described(self._containers[name].output_queue.get(timeout=timeout))
        except queue.Empty:
            return None

    def look_up(self, service, timeout, nameserver):
        return list(posttroll.ns.get_pub_address(service, timeout=timeout, nameserver=nameserver))

    def compose(self, subject, type, data, **options):
        return Message(subject, type, data, **options).encode()

    def rewrite(self, text):
        return Message.decode(text).encode()

    def decode(self, text):
        return described(Message.decode(text))

    def close(self):
        for end in (*self._containers.values(), *self._subscribers.values(), *self._publishers.values()):
            (end.stop if hasattr(end, "stop") else end.close)()


def described(message):
    names = ("subject", "type", "sender", "time", "data", "binary", "version")
    return {name: getattr(message, name) for name in names}


def pack(value):
    """Return what JSON can hold for what `json.dumps` cannot."""
    if isinstance(value, datetime.datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(repr(value))


def unpack(pairs):
    """Undo it, for `json.loads`."""
    if "$datetime" in pairs:
        return datetime.datetime.fromisoformat(pairs["$datetime"])
    if "$bytes" in pairs:
        return base64.b64decode(pairs["$bytes"])
    return pairs


def serve(peer):
    """Answer calls until there are no more."""
    for line in sys.stdin:
        call = json.loads(line, object_hook=unpack)
        try:
            answer = {"result": getattr(peer, call["name"])(**call["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=pack), flush=True)
    peer.close()


if __name__ == "__main__":
    # Released versions ask the routing table for the address to announce, which must not be any but loopback here.
    posttroll.publisher.get_own_ip = lambda: "127.0.0.1"
    if sys.argv[1:2] == ["nameserver"]:
        sys.argv[0:2] = ["nameserver"]
        if sys.argv[-2] == "--max-age":
            posttroll.ns.NameServer(datetime.timedelta(seconds=float(sys.argv[-1]))).run()
        else:
            posttroll.ns.main()
        sys.exit()
    serve(Peer())
