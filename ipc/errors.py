"""Every exception that ipc/ raises.

IpcError
 |- WouldBlock      nothing to take, or no free slot: try again after the next message
 |- Closed          *we* closed this end
 |- PeerLost        *the other end* died or vanished
 |- NoMemory        the host does not give the memory that was asked for
 `- ProtocolError   a message or slot state that no correct peer can produce
"""


class IpcError(Exception):
    """Base class; catch it only where a worker's fate is decided."""


class WouldBlock(IpcError):
    """The operation would have to wait."""


class Closed(IpcError):
    """Our own end was closed, by us."""


class PeerLost(IpcError):
    """The process at the other end is gone."""


class NoMemory(IpcError):
    """The host refused the memory of a pool."""


class ProtocolError(IpcError):
    """The peer broke the protocol; it is a bug, never a condition to retry."""
