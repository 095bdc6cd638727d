"""What a worker does with its stages around the items."""

import pytest

from ipc.records import StageUse
from ipc.setup_messages import Configure, Load, Prepare
from runtime.crew import ME
from runtime.hosted import pack
from runtime.steps import Steps
from stages.base import Job
from tests.fakes import Add, Facts

DONE = []


class Notes(Add):
    """Notes what it is told, and takes items of half the size."""

    def begin_load(self, device):
        DONE.append(("begin load", device))

    def load(self, device):
        DONE.append(("load", device))

    def begin_prepare(self, facts, size):
        DONE.append(("begin prepare", size))

    def prepare(self, facts, size):
        DONE.append(("prepare", size))
        return size // 2


@pytest.fixture
def steps():
    made = Steps(ME)
    uses = tuple(
        StageUse(name=name, use=f"{__name__}:Notes", defaults=pack({}), options=pack({}))
        for name in ("one", "two")
    )
    made.answer(Configure(**ME, stages=uses))
    DONE.clear()
    yield made
    made.close()


def test_all_stages_begin_before_the_first_goes_on(steps):
    steps.answer(Load(**ME, device="cpu"))
    assert DONE == [("begin load", "cpu")] * 2 + [("load", "cpu")] * 2
    DONE.clear()
    facts = pack(Facts(job=Job(input="", output="", work_dir=""), num_items=1, width=4))
    assert steps.answer(Prepare(**ME, facts=facts, size=8)).size == 2
    assert DONE == [("begin prepare", 8)] * 2 + [("prepare", 8), ("prepare", 4)]
