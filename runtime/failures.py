"""What messages of failures are as exceptions."""

from __future__ import annotations

from ipc.messages import ItemFailed
from ipc.setup_messages import SetupFailed
from runtime.errors import ConfigError, StageFailed
from runtime.under_way import Noted


def setup_failure(message: SetupFailed) -> ConfigError | StageFailed:
    """Return the exception that says what the message says."""
    if message.users_mistake:
        return ConfigError(message.error)
    stage = message.stage or message.sender.partition("/")[0]
    return StageFailed(message.sender, stage, None, message.error, message.traceback)


def killed_twice(worker: str, stage: str, run: Noted, error: Exception) -> ItemFailed:
    """Return what is told of an item that is given up, as `worker` died of it again."""
    return ItemFailed(
        sender=worker,
        incarnation=0,
        stage=stage,
        item=run.item,
        attempt=run.attempt + 1,
        error=f"it killed its worker twice, at last so: {error}",
        traceback="",
    )
