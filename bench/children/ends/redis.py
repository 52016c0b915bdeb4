"""Redis publish/subscribe, with redis-py and hiredis."""

import redis

from children.ends import base

__all__ = ["Receiver", "Sender"]

_CHANNEL = "/1b/viirs/npp"
_BATCH = 100


class Sender(base.JSONSender):
    """A client that publishes in pipelines, so that it does not wait for each reply."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self._client = redis.Redis.from_url(address)

    def send(self, frame):
        self._client.publish(_CHANNEL, frame)

    def send_many(self, frame, count):
        for start in range(0, count, _BATCH):
            with self._client.pipeline(transaction=False) as pipeline:
                for _ in range(min(_BATCH, count - start)):
                    pipeline.publish(_CHANNEL, frame)
                pipeline.execute()

    def close(self):
        self._client.close()


class Receiver(base.BlockingReceiver):
    """A client that listens to a channel."""

    def __init__(self, addresses):
        super().__init__()
        self._subscription = redis.Redis.from_url(addresses[0]).pubsub(ignore_subscribe_messages=True)
        self._subscription.subscribe(_CHANNEL)
        self.start()

    def run(self):
        for message in self._subscription.listen():
            self.take(message["data"])
