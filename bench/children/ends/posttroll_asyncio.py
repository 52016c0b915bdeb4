"""The asyncio subscriber of this package, fed by a `Publisher`."""

from children import messages
from children.ends import base
from children.ends.posttroll import Sender
from posttroll.asyncio.subscriber import Subscriber

__all__ = ["Receiver", "Sender"]


class Receiver(base.AwaitingReceiver):
    """A `Subscriber` that is iterated over."""

    def __init__(self, addresses):
        super().__init__()
        self.loop.run_until_complete(self._open(addresses))

    async def _open(self, addresses):
        self._subscriber = Subscriber(addresses, messages.SUBJECT)

    async def take(self, count, see):
        async for message in self._subscriber:
            if see is not None:
                see(message)
            self.seen += 1
            if self.seen == count:
                break

    def moment(self, message):
        return messages.moment_in(message.data)

    def close(self):
        self.loop.run_until_complete(self._subscriber.close())
        self.loop.close()
