"""The supervisor with a fleet that is played from a script: orders that processes show rarely."""

from types import SimpleNamespace

import pytest

from ipc.messages import ItemFailed, ItemsDurable, ItemWritten
from ipc.records import ItemAttempt, JobUsage, StageDescription, StageTensor
from ipc.setup_messages import CloseJob, JobClosed, JobOpened
from runtime.host import Host
from runtime.plan import make_plan, plan_workers
from runtime.run_trace import RunTrace
from runtime.setup import OpenedJob
from runtime.supervisor import Supervisor
from runtime.tally import Tally
from stages.base import Job

HOST = Host(hostname="h", kernel="6", python="3.12", cores=2, memory_bytes=2**30)
STAGES = {
    "read": ("source", (), ("x",)),
    "add": ("stage", ("x",), ("y",)),
    "write": ("sink", ("y",), ()),
}


class PlayedFleet:
    """Answers what it is asked, and then says what the script says."""

    def __init__(self, workers, script):
        self.workers = {
            plan.name: SimpleNamespace(plan=plan, incarnation=0, endpoint="ipc://x")
            for plan in workers
        }
        self.script = list(script)
        self.beats = {}

    def ask(self, kind, questions):
        assert kind is JobOpened, "nothing was done that could be joined"
        return dict.fromkeys(questions)

    def send(self, worker, message):
        if isinstance(message, CloseJob):
            self.script.append(JobClosed(sender=worker, incarnation=0, usage=JobUsage()))

    def receive(self, *, deadline=None, wakes=True):
        return self.script.pop(0) if self.script else None

    def wake(self):
        """Nobody waits."""


@pytest.fixture
def play(make_config):
    """Run one item through a supervisor whose fleet says `script`."""

    def run(*script):
        config = make_config()
        workers, _warnings = plan_workers(config, HOST)
        descriptions = [
            StageDescription(
                name=name,
                kind=kind,
                reads=reads,
                writes=writes,
                accepts=(),
                library="numpy",
                items_per_segment=kind == "sink",
            )
            for name, (kind, reads, writes) in STAGES.items()
        ]
        tensors = [
            StageTensor(stage=name, name=tensor, shape=(4,), dtype="float32")
            for name, (_kind, _reads, writes) in STAGES.items()
            for tensor in writes
        ]
        plan = make_plan(config, HOST, workers, descriptions, tensors, memory={}, num_items=1)
        job = Job(input="i", output="o", work_dir="w")
        opened = OpenedJob(
            job=job, facts=b"", item_size=1, unit="numbers", num_units=1, broken="", plan=plan
        )
        tally = Tally(lambda _durable: None)
        Supervisor(config, PlayedFleet(workers, script)).run(opened, tally, RunTrace(enabled=False))
        return tally

    return run


WRITTEN = ItemWritten(
    sender="write/0", incarnation=0, item=0, attempt=0, units=0, failed="add: ValueError: no"
)
DURABLE = ItemsDurable(
    sender="write/0",
    incarnation=0,
    items=(ItemAttempt(item=0, attempt=0),),
    files=(),
    counts={},
)
FAILED = ItemFailed(
    sender="add/0",
    incarnation=0,
    stage="add",
    item=0,
    attempt=0,
    error="ValueError: no",
    traceback="in die",
)


def test_a_failed_item_is_never_taken_for_done_when_its_news_comes_last(play):
    """Seen in 5 of 25 runs whose last item failed: the sink's messages came first."""
    tally = play(WRITTEN, DURABLE, FAILED)
    assert (tally.items_failed, tally.items_done) == (1, 0)
    assert [one.traceback for one in tally.failures] == ["in die"]


def test_the_sink_alone_is_enough_to_know_that_an_item_failed(play):
    tally = play(WRITTEN, DURABLE)
    assert (tally.items_failed, tally.items_done) == (1, 0)
    assert [(one.stage, one.error) for one in tally.failures] == [("add", "ValueError: no")]
