"""RabbitMQ, with pika, a topic exchange, and without acknowledgements."""

import pika

from children.ends import base

__all__ = ["Receiver", "Sender"]

_EXCHANGE = "bench"
_KEY = "1b.viirs.npp"


def _channel(address):
    channel = pika.BlockingConnection(pika.URLParameters(address)).channel()
    channel.exchange_declare(_EXCHANGE, "topic")
    return channel


class Sender(base.JSONSender):
    """A client that publishes."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self._channel = _channel(address)

    def send(self, frame):
        self._channel.basic_publish(_EXCHANGE, _KEY, frame)

    def flush(self):
        self._channel.connection.process_data_events()

    def close(self):
        self._channel.connection.close()


class Receiver(base.BlockingReceiver):
    """A client that consumes from a queue of its own."""

    def __init__(self, addresses):
        super().__init__()
        self._channel = _channel(addresses[0])
        queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(queue, _EXCHANGE, _KEY)
        self._channel.basic_consume(queue, lambda channel, method, header, body: self.take(body), auto_ack=True)
        self.start()

    def run(self):
        self._channel.start_consuming()
