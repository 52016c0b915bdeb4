"""Addressed messages between programs that know each other by name, on an event loop."""

from posttroll.asyncio.messenger.events import Event
from posttroll.asyncio.messenger.messenger import Messenger
from posttroll.asyncio.messenger.targets import Target
from posttroll.asyncio.messenger.trackers import Tracker
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.properties import Properties

__all__ = ["Event", "Messenger", "PeerInfo", "Properties", "Target", "Tracker"]
