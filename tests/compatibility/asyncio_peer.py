"""The program of `peer`, with the front ends of asyncio in place of the blocking ones."""

from __future__ import annotations

from typing import Any

import posttroll.asyncio
from tests.compatibility import peer
from tests.fixtures.portal import Portal, next_within

_FRONT_ENDS = ("ListenerContainer", "create_publisher_from_dict_config", "create_subscriber_from_dict_config")


class AsyncioPeer(peer.Peer):
    """What differs."""

    portal: Portal

    def listen(self, name: str, **settings: Any) -> None:
        super().listen(name, **settings)
        self._containers[name].start()

    def take(self, name: str, timeout: float) -> dict[str, Any] | None:
        try:
            return peer.described(next_within(self._containers[name], timeout))
        except TimeoutError:
            return None

    def look_up(self, service: str, timeout: float, nameserver: str) -> list[Any]:
        look_up = self.portal.twin(posttroll.asyncio.get_pub_address)
        return list(look_up(service, timeout=timeout, nameserver=nameserver))


if __name__ == "__main__":
    with Portal() as AsyncioPeer.portal:
        for front_end in _FRONT_ENDS:
            setattr(peer, front_end, AsyncioPeer.portal.twin(getattr(posttroll.asyncio, front_end)))
        peer.serve(AsyncioPeer())
