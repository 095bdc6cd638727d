"""Hostile messages on the sockets of real processes: they answer, or end with a line that says why.

A worker that is sent what nobody sends ends: to leave a message out might be to wait for it for
ever. Its small thread leaves it out, as it is asked nothing that anybody waits for.
"""

import random
import socket
import time
from contextlib import contextmanager

import pytest
import zmq

from ipc.message import MAX_MESSAGE_BYTES
from ipc.messages import Heartbeat, SlotFreed, Stop, Woken, encode
from ipc.records import DeadWorker, JobUsage
from ipc.replay_messages import Held, PeerDied
from ipc.setup_messages import CloseJob, Finish, Prepare, Started
from runtime.errors import RunpipeError
from runtime.fleet import Fleet
from runtime.logs import log_path
from runtime.worker import EXIT_PROTOCOL
from runtime.worker_plan import WorkerPlan
from tests.hostile.cases import NUM_NIGHTLY
from tests.hostile.local_job import ready_message
from tests.hostile.messages import good_message
from tests.hostile.mutate import damaged
from tests.waiting import wait_until

ME = {"sender": "supervisor", "incarnation": 0}
ADD = "add/0"
TIMEOUT_S = 20.0
LINGER_MS = 2000  # for what a worker that ends does not take
NUM_PROCESSES = max(8, NUM_NIGHTLY // 400)  # at night; each takes half a second to start


@pytest.fixture
def fleet(tmp_path):
    """Return a function that starts one worker, which knows no stage yet, in a fleet."""

    @contextmanager
    def start():
        with Fleet(run_dir=tmp_path, hang_s=TIMEOUT_S, stop_grace_s=TIMEOUT_S) as fleet:
            fleet.start([WorkerPlan(name=ADD, stages=("add",), gpu=None, threads=1)])
            yield fleet

    return start


@pytest.fixture
def push():
    """Send parts of one message to an endpoint."""
    with zmq.Context() as context:

        def send(endpoint, *parts):
            with context.socket(zmq.PUSH) as out:
                out.linger = LINGER_MS
                out.connect(endpoint)
                out.send_multipart(parts)

        yield send


def inbox_of(fleet):
    """Return the supervisor's endpoint: its folder's first."""
    return f"{fleet.workers[ADD].endpoint.rpartition('/')[0]}/1"


def log_of(tmp_path):
    return log_path(tmp_path, ADD).read_text()


def ended(fleet, tmp_path):
    """Ask the worker to stop; return how it ended, and its log."""
    worker = fleet.workers[ADD]
    fleet.send(ADD, Stop(**ME))
    return worker.process.wait(TIMEOUT_S), log_of(tmp_path)


def test_a_worker_ends_with_a_line_at_what_is_no_message(fleet, push, tmp_path):
    with fleet() as running:
        push(running.workers[ADD].endpoint, b"\xc1")
        code = running.workers[ADD].process.wait(TIMEOUT_S)
    assert code == EXIT_PROTOCOL
    (line,) = [line for line in log_of(tmp_path).splitlines() if "ERROR" in line]
    assert "broken protocol: bad message of 1 bytes: " in line
    assert "Traceback" not in log_of(tmp_path)


OUT_OF_PLACE = {
    "item": ready_message(),
    "slot of no job": SlotFreed(**ME, pool="p", slot=0, item=0, attempt=0, reader="r"),
    "woken": Woken(**ME),
    "close": CloseJob(**ME),
    "finish": Finish(**ME, num_items=1),
    "prepare": Prepare(**ME, facts=b"\xc1", size=2**61),
    "answer": Held(**ME, asked=-1, items=()),
    "small thread's": PeerDied(**ME, asked=-1, dead=()),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OUT_OF_PLACE)
def test_a_message_at_the_wrong_time_is_refused_or_does_nothing(what, fleet, push, tmp_path):
    with fleet() as running:
        push(running.workers[ADD].endpoint, encode(OUT_OF_PLACE[what]))
        code, log = ended(running, tmp_path)
    assert code in (0, EXIT_PROTOCOL)
    assert "Traceback" not in log or "failed doing=" in log
    assert code == 0 or "broken protocol: " in log


def judge_parts(running, push, tmp_path, parts):
    push(running.workers[ADD].endpoint, *parts)
    code, log = ended(running, tmp_path)
    assert code in (0, EXIT_PROTOCOL), log
    assert "Traceback" not in log or "failed doing=" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    "seeds",
    [range(3), pytest.param(range(100, 100 + NUM_PROCESSES), marks=pytest.mark.nightly)],
    ids=["day", "night"],
)
def test_damaged_messages_in_several_parts_end_a_worker_or_do_nothing(seeds, fleet, push, tmp_path):
    for seed in seeds:
        rng = random.Random(seed)
        parts = [damaged(rng, encode(good_message(rng))) for _ in range(rng.randint(1, 3))]
        log_path(tmp_path, ADD).unlink(missing_ok=True)
        with fleet() as running:
            judge_parts(running, push, tmp_path, parts)


def test_what_is_too_large_or_speaks_no_zeromq_does_nothing(fleet, push, tmp_path):
    with fleet() as running:
        endpoint = running.workers[ADD].endpoint
        push(endpoint, bytes(MAX_MESSAGE_BYTES + 1))
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" + b"\x7f" * 4096):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(endpoint.removeprefix("ipc://"))
                raw.sendall(greeting)
        code, log = ended(running, tmp_path)
    assert code == 0
    assert "ERROR" not in log


def test_a_small_thread_leaves_out_what_it_is_not_asked(fleet, push, tmp_path):
    with fleet() as running:
        endpoint = f"{running.workers[ADD].endpoint}.pulse"
        push(endpoint, b"\xc1")
        push(endpoint, encode(Stop(**ME)))
        running.send_pulse(
            ADD, PeerDied(**ME, asked=7, dead=(DeadWorker(worker="x/0", incarnation=0),))
        )
        answer = running.receive(deadline=time.monotonic() + TIMEOUT_S)
        assert answer == Held(sender=ADD, incarnation=0, asked=7, items=())
        wait_until(lambda: log_of(tmp_path).count("dropped by") == 2)
        code, log = ended(running, tmp_path)
    assert code == 0
    assert "dropped by the small thread: bad message of 1 bytes: " in log
    assert "dropped by the small thread: Stop of 'supervisor'" in log


def test_a_supervisor_ends_with_a_line_at_what_is_no_message(fleet, push):
    with fleet() as running:
        push(inbox_of(running), b"\x81\xa4type\xa4Stop")
        with pytest.raises(RunpipeError, match=r"^not from a worker: bad message of 11 bytes: "):
            running.receive(deadline=time.monotonic() + TIMEOUT_S)


@pytest.mark.parametrize(("sender", "incarnation"), [("no/0", 0), (ADD, 7), ("", 0)])
def test_a_supervisor_leaves_out_what_no_worker_of_its_own_says(sender, incarnation, fleet, push):
    beat = Heartbeat(
        sender=sender,
        incarnation=incarnation,
        item=0,
        attempt=0,
        running_s=0.0,
        progress=0.0,
        num_here=99,
        waits_for="",
        usage=JobUsage(),
    )
    with fleet() as running:
        push(inbox_of(running), encode(beat))
        push(inbox_of(running), encode(Started(sender=ADD, incarnation=0)))
        assert isinstance(running.receive(deadline=time.monotonic() + TIMEOUT_S), Started)
        assert all(told.num_here == 0 for told in running.beats.values())
