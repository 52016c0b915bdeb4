"""Send a message to an address: no nameserver, no broker. Both ends are in this program."""

from __future__ import annotations

from posttroll.message import Message
from posttroll.messenger import Messenger


def say_hello() -> None:
    """Listen at a free port, connect to it, and send one message."""
    with Messenger("host", nameservers=False) as host, Messenger("guest", listen=False, nameservers=False) as guest:
        tracker = guest.put(host.address, Message("/greeting", "info", "Hello World!"))
        host.recv(1, timeout=10)
        message = host.get()
        print(f"{message.properties.source} says {message.data}")
        host.accept(message)
        print(f"the message is {tracker.wait(timeout=10)}")


if __name__ == "__main__":
    say_hello()
