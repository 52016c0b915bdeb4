"""Addressed messages between programs that know each other by name."""

from posttroll.messenger.events import Event
from posttroll.messenger.messenger import Messenger
from posttroll.messenger.targets import Target
from posttroll.messenger.trackers import Tracker
from posttroll.protocol.conversation import PeerInfo
from posttroll.protocol.properties import Properties

__all__ = ["Event", "Messenger", "PeerInfo", "Properties", "Target", "Tracker"]
