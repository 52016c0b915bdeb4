"""This package: a server and a client that know each other by address."""

from children.calls import base
from posttroll.messenger import Messenger
from posttroll.rpc import RpcClient, RpcServer, public

__all__ = ["Caller", "Server"]

_NAME = "echo"


class _Echo:
    @public
    def echo(self, argument):
        return argument


class Server(base.Server):
    """A server with as many workers as by default."""

    def __init__(self):
        self._messenger = Messenger("bench-callee", nameservers=False).start()
        self._server = RpcServer(self._messenger)
        self._server.register(_Echo(), _NAME)
        self._server.start()
        self.address = self._messenger.address.replace("*", "127.0.0.1")

    def close(self):
        self._server.stop()
        self._messenger.stop()


class Caller(base.Caller):
    """A client that only connects, and that threads share."""

    def __init__(self, address):
        super().__init__(address)
        self._messenger = Messenger(listen=False, nameservers=False).start()
        self._client = RpcClient(self._messenger)
        self.call = self._client.proxy(address, _NAME).echo
        self._start = self.call.start

    def begin(self, argument):
        return self._start(argument).result

    def alike(self):
        return self

    def close(self):
        self._client.stop()
        self._messenger.stop()
