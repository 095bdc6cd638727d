"""Typed ZeroMQ sockets: one inbox per worker incarnation, one outbox per peer, and one wait.

An endpoint is a socket file in a short private directory, used by one incarnation and never again:
a peer that comes back on an old path would receive what was sent while it was dead. So nothing
here reconnects. Sending never blocks; waiting is done in `Watch.wait`, or in `Inbox.wait` by a
thread that waits for nothing else.
"""

from __future__ import annotations

from math import inf
from types import TracebackType

import zmq

from ipc.errors import PeerLost, ProtocolError, WouldBlock
from ipc.message import MAX_MESSAGE_BYTES
from ipc.messages import AnyMessage, decode, encode

# Most messages that wait in one socket. The admission window bounds what is under way to a few
# messages an item, so this is reached only when the other end has stopped taking any.
MAX_QUEUED = 16384
LINGER_MS = 1000  # how long a closing process waits to get its last words out
MAX_PATH_BYTES = 107  # of a Unix socket; 108 fail


class _End:
    """What inbox and outbox have in common: an owned socket."""

    def __init__(self, zmq_context: zmq.Context[zmq.Socket[bytes]], kind: int) -> None:
        self.socket = zmq_context.socket(kind)

    def close(self) -> None:
        """Close the socket. Safe to call twice."""
        self.socket.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the socket."""
        self.close()


class Inbox(_End):
    """Where one incarnation of a worker receives its messages, whoever sends them."""

    def __init__(self, zmq_context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        """Bind `endpoint`, "ipc://PATH".

        Raises:
            ValueError: the path is too long for a Unix socket.
        """
        if len(endpoint.removeprefix("ipc://").encode()) > MAX_PATH_BYTES:
            raise ValueError(f"{endpoint}: a socket path has at most {MAX_PATH_BYTES} bytes")
        super().__init__(zmq_context, zmq.PULL)
        self.endpoint = endpoint
        self.socket.linger = 0
        self.socket.rcvhwm = MAX_QUEUED
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.socket.bind(endpoint)
        self.has_message = False  # a wait saw one, and nothing was received since
        self._poll_items = [(self.socket, zmq.POLLIN)]

    def receive(self) -> AnyMessage:
        """Return the next message.

        Raises:
            WouldBlock: there is none.
            ProtocolError: what came is no message of ours.
        """
        message = self.try_receive()
        if message is None:
            raise WouldBlock(f"{self.endpoint}: no message")
        return message

    def try_receive(self) -> AnyMessage | None:
        """Return the next message; None if there is none.

        Raises:
            ProtocolError: what came is no message of ours.
        """
        # After a wait that saw one nobody need ask again. Asking like this takes half the time of
        # asking for ZMQ_EVENTS, and a quarter of that of zmq.Again.
        if not self.has_message and not zmq.zmq_poll(self._poll_items, 0):
            return None
        self.has_message = False
        # Each part is decoded by itself: our outboxes send messages of one part only, and to ask
        # whether more belong to it would take longer than to receive it.
        return decode(self.socket.recv(zmq.NOBLOCK))

    def wait(self) -> AnyMessage:
        """Return the next message, however long it takes to come.

        For a thread that waits for nothing else, and that something else ends if nobody is left to
        send. A `Watch` would poll first and ask again after it has slept; between a message and
        what it sets off each of these takes longer than it looks, as a core that slept is cold.

        Raises:
            ProtocolError: what came is no message of ours.
        """
        self.has_message = False
        return decode(self.socket.recv())

    def __enter__(self) -> Inbox:
        """Return the inbox."""
        return self


class Outbox(_End):
    """The way to one inbox. Belongs to one thread."""

    def __init__(self, zmq_context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        """Connect to `endpoint`, which is bound already."""
        super().__init__(zmq_context, zmq.PUSH)
        self.endpoint = endpoint
        self.socket.linger = LINGER_MS
        self.socket.sndhwm = MAX_QUEUED
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.connect(endpoint)

    def send(self, message: AnyMessage) -> None:
        """Send without waiting.

        Raises:
            PeerLost: the other end is gone, or has taken nothing for very long.
            ProtocolError: it is too large; the inbox would drop it, and the connection with it.
        """
        part = encode(message)
        if len(part) > MAX_MESSAGE_BYTES:
            raise ProtocolError(
                f"{type(message).__name__} of {len(part)} bytes; at most {MAX_MESSAGE_BYTES} travel"
            )
        try:
            self.socket.send(part, zmq.NOBLOCK)
        except zmq.Again as error:
            raise PeerLost(f"{self.endpoint}: nobody takes messages there") from error

    def __enter__(self) -> Outbox:
        """Return the outbox."""
        return self


class Watch:
    """The one wait of a thread: on messages and on descriptors that tell of a death."""

    def __init__(self, *inboxes: Inbox) -> None:
        self._poller = zmq.Poller()
        self._inboxes = {inbox.socket: inbox for inbox in inboxes}
        for socket in self._inboxes:
            self._poller.register(socket, zmq.POLLIN)

    def add(self, fd: int) -> None:
        """Wake when `fd` (a pidfd, a pipe) is readable or its other end is closed."""
        self._poller.register(fd, zmq.POLLIN)

    def remove(self, fd: int) -> None:
        """Watch `fd` no more."""
        self._poller.unregister(fd)

    def wait(self, *, timeout_s: float | None) -> set[int]:
        """Wait for a message or a descriptor, and return the descriptors that woke us.

        `timeout_s` None, or infinite, waits until there is one.
        """
        timeout_ms = (
            None if timeout_s is None or timeout_s == inf else max(0, round(timeout_s * 1000))
        )
        woken = set()
        for ready, _events in self._poller.poll(timeout_ms):
            if isinstance(ready, int):
                woken.add(ready)
            else:
                self._inboxes[ready].has_message = True
        return woken
