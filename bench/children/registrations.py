"""Many publishers that register at a nameserver over connections of their own."""

import resource

from children.serving import serve
from posttroll.message_broadcaster import AddressServiceBroadcaster

_FIRST_PORT = 20_000


class Registrations:
    """What can be called."""

    def __init__(self):
        self._broadcasters = []

    def register(self, first, count, interval):
        """Begin to register publishers with the numbers from `first` on, each every `interval` seconds."""
        for number in range(first, first + count):
            name = f"service_{number:05}"
            address = f"tcp://127.0.0.1:{_FIRST_PORT + number}"
            broadcaster = AddressServiceBroadcaster(name, address, [name], interval, ["localhost"])
            broadcaster.start()
            self._broadcasters.append(broadcaster)


if __name__ == "__main__":
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    serve(Registrations())
