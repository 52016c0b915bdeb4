"""Finding the other containers that are wanted, from a loop."""

from __future__ import annotations

from posttroll.asyncio.address_listener import AddressListener
from posttroll.messenger.peer_finder import BasePeerFinder

__all__ = ["PeerFinder"]


class PeerFinder(BasePeerFinder):
    """Has a link connected to those who are wanted, wherever nameservers say that they are.

    Without nameservers that of this host is listened to; if they are False, nobody is found by name.
    """

    _listener: AddressListener | None

    def start(self) -> None:
        """Begin to listen to the nameservers, if there are any."""
        if self._nameservers is not False:
            self._listener = AddressListener(self, (), self._nameservers).start()

    async def stop(self) -> None:
        """Look for nobody any more; connections stay. Harmless when stopped."""
        self._is_stopped = True
        if self._listener is not None:
            await self._listener.stop()
