"""RPyC: a service with a thread for each connection. A dictionary would be passed by reference: so JSON is passed."""

import orjson
import rpyc
from rpyc.utils.server import ThreadedServer

from children.calls import base

__all__ = ["Caller", "Server"]


class _Echo(rpyc.Service):
    def exposed_echo(self, argument):
        return orjson.dumps(orjson.loads(argument))


class Server(base.Server):
    """A server with a thread for each connection."""

    def __init__(self):
        self._server = ThreadedServer(_Echo(), hostname="127.0.0.1", port=0)
        self.address = f"{self._server.host}:{self._server.port}"
        self.start(self._server.start)

    def close(self):
        self._server.close()


class Caller(base.Caller):
    """A connection, of which each thread has its own: shared, it is slower."""

    def __init__(self, address):
        super().__init__(address)
        host, _, port = address.partition(":")
        self._connection = rpyc.connect(host, int(port))
        self._echo = self._connection.root.echo
        self._begin = rpyc.async_(self._echo)

    def call(self, argument):
        return orjson.loads(self._echo(orjson.dumps(argument)))

    def begin(self, argument):
        reply = self._begin(orjson.dumps(argument))
        return lambda: orjson.loads(reply.value)

    def close(self):
        self._connection.close()
