"""What messages of failures are as exceptions."""

from __future__ import annotations

from ipc.setup_messages import SetupFailed
from runtime.errors import ConfigError, StageFailed


def setup_failure(message: SetupFailed) -> ConfigError | StageFailed:
    """Return the exception that says what the message says."""
    if message.users_mistake:
        return ConfigError(message.error)
    stage = message.stage or message.sender.partition("/")[0]
    return StageFailed(message.sender, stage, None, message.error, message.traceback)
