"""ZeroMQ as a backend, twice: open and with CURVE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from posttroll.backends.base import DatagramReceiver, DatagramSender, Peer
from posttroll.backends.zmq.links import ZMQLinks
from posttroll.backends.zmq.publisher import ZMQPublisher
from posttroll.backends.zmq.requests import ZMQReplies, ZMQRequests
from posttroll.backends.zmq.security import strategy
from posttroll.backends.zmq.subscriber import ZMQSubscriber
from posttroll.settings import Ports, read

__all__ = ["ZMQBackend", "secure_zmq", "unsecure_zmq"]


class ZMQBackend:
    """Opens the channels of one of the two."""

    within_process = False

    def __init__(self, name: str, nameserver_port: str) -> None:
        self.name = name
        self.strength = strategy(name).strength
        self._nameserver_port = nameserver_port

    def open_publish(self, address: str, ports: Ports, when_full: str = "drop") -> ZMQPublisher:
        """Open a publisher."""
        return ZMQPublisher(address, "", ports.minimum, ports.maximum, self.name, when_full).start()

    def open_subscribe(self) -> ZMQSubscriber:
        """Open a subscriber."""
        return ZMQSubscriber(backend=self.name)

    def open_request(self, peers: Iterable[Peer]) -> ZMQRequests:
        """Open an asking end."""
        return ZMQRequests(peers)

    def open_reply(self, bindings: Sequence[Peer]) -> ZMQReplies:
        """Open an answering end."""
        return ZMQReplies(bindings)

    def open_links(self, address: str | None, ports: Ports) -> ZMQLinks:
        """Open the end of links."""
        return ZMQLinks(address, ports, self.name)

    def announce_with(self, port: int) -> Callable[[], DatagramSender] | None:
        """Leave announcements to the network's multicast."""
        return None

    def listen_with(self, port: int) -> Callable[[], DatagramReceiver] | None:
        """Leave announcements to the network's multicast."""
        return None

    @property
    def own_port(self) -> tuple[str, int]:
        """The name and the nameserver port of this backend."""
        return self.name, read(self._nameserver_port)

    def nameserver_ports(self) -> Sequence[tuple[str, int]]:
        """Serve the own port, and the other one if it is secure and has keys, or is asked for."""
        if self is secure_zmq:
            return [self.own_port, unsecure_zmq.own_port] if read("serve_unsecure_nameserver") else [self.own_port]
        has_keys = read("server_secret_key_file") and read("clients_public_keys_directory")
        return [self.own_port, secure_zmq.own_port] if has_keys else [self.own_port]


unsecure_zmq = ZMQBackend("unsecure_zmq", "nameserver_port")
secure_zmq = ZMQBackend("secure_zmq", "secure_zmq_nameserver_port")
