"""Every exception of the package, in one tree.

::

    PosttrollError
    ├ MessageError
    │ ├ EncodeError(TypeError)
    │ └ DecodeError(ValueError)
    │   └ UnsupportedVersion
    ├ ConfigurationError
    │ ├ UnknownBackend(NotImplementedError)
    │ ├ MissingSetting(KeyError)
    │ ├ KeyFileError(OSError)
    │ └ BackendNotInstalled(ImportError)
    ├ TransportError(OSError)
    │ ├ BindFailed
    │ ├ ConnectionLost
    │ ├ AuthenticationRefused
    │ └ UsedAfterFork
    ├ Interrupted
    ├ TimedOut(TimeoutError)
    │ ├ AddressNotFound
    │ └ RequestTimeout
    ├ ProtocolError
    │ ├ LocalProtocolError
    │ │ └ NotStarted(AttributeError)
    │ └ RemoteProtocolError
    ├ Refused
    ├ RemoteError
    │ ├ CallCancelled
    │ ├ CallInterrupted
    │ └ MethodNotFound(AttributeError)
    └ JournalError(OSError)
      ├ JournalFull
      ├ JournalCorrupt
      └ JournalInUse
"""

__all__ = [
    "AddressNotFound",
    "AuthenticationRefused",
    "BackendNotInstalled",
    "BindFailed",
    "CallCancelled",
    "CallInterrupted",
    "ConfigurationError",
    "ConnectionLost",
    "DecodeError",
    "EncodeError",
    "Interrupted",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalInUse",
    "KeyFileError",
    "LocalProtocolError",
    "MessageError",
    "MethodNotFound",
    "MissingSetting",
    "NotStarted",
    "PosttrollError",
    "ProtocolError",
    "Refused",
    "RemoteError",
    "RemoteProtocolError",
    "RequestTimeout",
    "TimedOut",
    "TransportError",
    "UnknownBackend",
    "UnsupportedVersion",
    "UsedAfterFork",
]


class PosttrollError(Exception):
    """The root of all that this package raises on its own account."""


class MessageError(PosttrollError):
    """A message cannot be what it is asked to be."""


class EncodeError(MessageError, TypeError):
    """The fields given to a message cannot be written."""


class DecodeError(MessageError, ValueError):
    """What was received is not a message."""


class UnsupportedVersion(DecodeError):
    """The message is of a newer version than this package reads."""


class ConfigurationError(PosttrollError):
    """A setting or an argument cannot work."""


class UnknownBackend(ConfigurationError, NotImplementedError):
    """No backend of that name is known."""


class MissingSetting(ConfigurationError, KeyError):
    """A setting that is needed is not there."""

    __str__ = Exception.__str__  # KeyError would print the text's repr


class KeyFileError(ConfigurationError, OSError):
    """A file or directory of keys is missing, unreadable, or not what it should be."""


class BackendNotInstalled(ConfigurationError, ImportError):
    """The backend is known, but what it is built on is not installed."""


class TransportError(PosttrollError, OSError):
    """Frames cannot be moved."""


class BindFailed(TransportError):
    """An address cannot be bound: in use, not of this host, or malformed."""


class ConnectionLost(TransportError):
    """The channel was closed while it was in use."""


class AuthenticationRefused(TransportError):
    """The peer's key or address is not on the list."""


class UsedAfterFork(TransportError):
    """An object that was opened before a fork is used in the child."""


class Interrupted(PosttrollError):
    """Another thread interrupted what was waited for."""


class TimedOut(PosttrollError, TimeoutError):
    """It did not happen in time."""


class AddressNotFound(TimedOut):
    """No address of the service became known in time."""


class RequestTimeout(TimedOut):
    """The other side did not answer in time."""


class ProtocolError(PosttrollError):
    """The rules of a protocol were broken."""


class LocalProtocolError(ProtocolError):
    """This side's caller broke the rules."""


class NotStarted(LocalProtocolError, AttributeError):
    """It is used before it was started."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules."""


class Refused(PosttrollError):
    """A handler says that it will never do what it is asked."""


class RemoteError(PosttrollError):
    """A call failed on the other side.

    `type` is the name of the exception that was raised there, "" if that is not known; `remote_traceback` is where, as
    text, which built-in exceptions that came from there have, too.
    """

    def __init__(self, text: str = "", type: str = "", remote_traceback: str = "") -> None:
        super().__init__(text)
        self.type = type
        self.remote_traceback = remote_traceback


class CallCancelled(RemoteError):
    """The call was cancelled."""


class CallInterrupted(RemoteError):
    """The other side went down while it was called; nobody knows whether the call was executed."""


class MethodNotFound(RemoteError, AttributeError):
    """The other side has no public method of that name."""


class JournalError(PosttrollError, OSError):
    """The journal cannot do what it is asked."""


class JournalFull(JournalError):
    """The journal has reached its limit, or its disk has."""


class JournalCorrupt(JournalError):
    """The journal's file is damaged."""


class JournalInUse(JournalError):
    """Another process has the journal open."""
