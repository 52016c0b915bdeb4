"""RabbitMQ, with pika: a durable queue, messages that are confirmed, and a consumer that acknowledges each.

The connections are those that pika has for speed, which call back; its blocking one is slower or as fast.
"""

import threading
import uuid

import pika

from children.ends import base

__all__ = ["Receiver", "Sender"]

_PREFETCH = 100
_WINDOW = 1000
_MODES = {True: pika.DeliveryMode.Persistent, False: pika.DeliveryMode.Transient}


class Sender(base.JSONSender):
    """A client that publishes to a queue of its own; `pipelined`: many confirms may be outstanding, not just one."""

    def __init__(self, address, pipelined=False, queue_type="classic", persistent=True):
        super().__init__()
        self._properties = pika.BasicProperties(delivery_mode=_MODES[persistent])
        self._queue = f"bench-{uuid.uuid4().hex}"
        self.address = {"server": address, "queue": self._queue}
        self._window = _WINDOW if pipelined else 1
        self._sent = self._confirmed = self._goal = 0
        self._server = pika.URLParameters(address)
        with pika.BlockingConnection(self._server) as connection:
            connection.channel().queue_declare(self._queue, durable=True, arguments={"x-queue-type": queue_type})
        self._connection = pika.SelectConnection(self._server, self._open)
        self._run()

    def _run(self):
        self._connection.ioloop.start()

    def _stop(self, *_):
        self._connection.ioloop.stop()

    def _open(self, connection):
        self._channel = connection.channel(on_open_callback=self._select)

    def _select(self, channel):
        channel.confirm_delivery(self._note, callback=self._stop)

    def send(self, frame):
        self.send_many(frame, 1)

    def send_many(self, frame, count):
        self._frame, self._goal = frame, self._goal + count
        self._fill()
        self._run()

    def _fill(self):
        publish, queue, frame, properties = self._channel.basic_publish, self._queue, self._frame, self._properties
        target = min(self._confirmed + self._window, self._goal)
        for _ in range(self._sent, target):
            publish("", queue, frame, properties)
        self._sent = max(self._sent, target)

    def _note(self, frame):
        confirm = frame.method
        if not isinstance(confirm, pika.spec.Basic.Ack):
            raise OSError("a message was not taken")
        self._confirmed = confirm.delivery_tag if confirm.multiple else self._confirmed + 1
        if self._confirmed == self._goal:
            self._stop()
        else:
            self._fill()

    def close(self):
        with pika.BlockingConnection(self._server) as connection:
            connection.channel().queue_delete(self._queue)


class Receiver(base.BlockingReceiver):
    """A client that consumes from the queue."""

    def __init__(self, addresses):
        super().__init__()
        self._queue = addresses[0]["queue"]
        self._ready = threading.Event()
        self._connection = pika.SelectConnection(pika.URLParameters(addresses[0]["server"]), self._open)
        self.start()
        if not self._ready.wait(10):
            raise TimeoutError("there is no consumer")

    def run(self):
        self._connection.ioloop.start()

    def _open(self, connection):
        connection.channel(on_open_callback=self._consume)

    def _consume(self, channel):
        channel.basic_qos(prefetch_count=_PREFETCH)
        channel.basic_consume(self._queue, self._take, callback=lambda _: self._ready.set())

    def _take(self, channel, method, _, body):
        self.take(body)
        if not self.keeps:
            channel.basic_ack(method.delivery_tag)
