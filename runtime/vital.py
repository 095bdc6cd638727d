"""What heartbeats say: the last of each worker, and whether it gets on."""

from __future__ import annotations

from ipc.messages import AnyMessage, Heartbeat
from ipc.setup_messages import Prepared
from runtime.errors import WorkerHung
from runtime.item_watch import ItemWatch


class Vital:
    """All workers of a fleet."""

    def __init__(self, item_limit_s: float | None) -> None:
        self._item_limit_s = item_limit_s
        self._watches: dict[str, ItemWatch] = {}
        self.beats: dict[str, Heartbeat] = {}  # the last of each worker, also of a dead one

    def hear(self, message: AnyMessage) -> bool:
        """Take a message; return whether it is a heartbeat, which says nothing more.

        Raises:
            WorkerHung: the worker gets nowhere with an item.
        """
        name = message.sender
        watch = self._watches.setdefault(name, ItemWatch(self._item_limit_s))
        if isinstance(message, Prepared):
            watch.took(message.prepare_s)
        if not isinstance(message, Heartbeat):
            return False
        self.beats[name] = message
        if stuck := watch.beat(message):
            what = f"no progress with item {stuck.item}"
            raise WorkerHung(name, what, waited_s=stuck.waited_s)
        return True
