"""Errors name the object and the numbers, in one line."""

import signal

import pytest

from runtime.errors import (
    ConfigError,
    PlanError,
    RunInterrupted,
    RunpipeError,
    StageFailed,
    WorkerDied,
    WorkerHung,
    bounded,
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            WorkerDied("denoise/0", -9),
            "worker denoise/0 died (killed by signal 9, SIGKILL)",
        ),
        (WorkerDied("denoise/0", 1), "worker denoise/0 died (exit code 1)"),
        (WorkerDied("x/0", 1, log="x.log"), "worker x/0 died (exit code 1); see x.log"),
        (WorkerDied("denoise/0", -40), "worker denoise/0 died (killed by signal 40)"),
        (
            WorkerHung("denoise/0", "no progress with item 2", waited_s=60),
            "worker denoise/0 hung (no progress with item 2 for 60.0 s)",
        ),
        (
            StageFailed("encode+decode/0", "decode", 3, "ValueError: frame pair has 3 frames"),
            "stage decode failed in worker encode+decode/0 on item 3: "
            "ValueError: frame pair has 3 frames",
        ),
        (
            StageFailed("denoise/0", "denoise", None, "UserError: no weights"),
            "stage denoise failed in worker denoise/0: UserError: no weights",
        ),
        (
            RunInterrupted(signal.SIGINT, num_done=3, num_items=9),
            "interrupted by SIGINT after 3 of 9 items",
        ),
    ],
)
def test_an_error_names_the_object_and_the_numbers(error, message):
    assert str(error) == message
    assert isinstance(error, RunpipeError)


def test_a_mistake_of_the_user_is_a_value_error():
    assert issubclass(PlanError, ConfigError)
    assert issubclass(ConfigError, ValueError)


def test_what_an_exception_says_is_cut_and_made_encodable():
    assert bounded("short", 10) == "short"
    assert bounded("a" * 50 + "b" * 50, 10) == "aaaaa [90 characters left out] bbbbb"
    assert bounded("in\udcff.mp4", 100) == "in\\udcff.mp4"
