"""This package on event loops: a server and a client that know each other by address."""

import asyncio

from children.calls import base
from posttroll.asyncio.messenger import Messenger
from posttroll.asyncio.rpc import RpcClient, RpcServer, public

__all__ = ["Caller", "Server"]

_NAME = "echo"


class _Echo:
    @public
    async def echo(self, argument):
        return argument


class Server(base.Server):
    """A server whose loop has a thread, with as many workers as by default."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self.start(self._loop.run_forever)
        self.address = self._do(self._open())

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self):
        self._messenger = Messenger("bench-callee", nameservers=False)
        await self._messenger.start()
        self._server = RpcServer(self._messenger)
        self._server.register(_Echo(), _NAME)
        await self._server.start()
        return self._messenger.address.replace("*", "127.0.0.1")

    def close(self):
        self._do(self._close())

    async def _close(self):
        await self._server.stop()
        await self._messenger.stop()


class Caller:
    """A client that only connects, and that tasks share; `open` and `close` are awaited, and so is each `call`."""

    async def open(self, address):
        """Be ready to call."""
        self._messenger = Messenger(listen=False, nameservers=False)
        await self._messenger.start()
        self._client = RpcClient(self._messenger)
        self.call = self._client.proxy(address, _NAME).echo

    async def close(self):
        """Let go of everything."""
        await self._client.stop()
        await self._messenger.stop()
