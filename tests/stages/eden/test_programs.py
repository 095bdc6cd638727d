"""How a captured computation is fed and read, with a CUDA that is pretended: no GPU needed."""

from contextlib import contextmanager
from contextvars import ContextVar

import pytest
import torch

from stages.eden import programs
from stages.eden.programs import Captured

ELSEWHERE = torch.device("meta")  # of a stage: so memory of the host is "elsewhere"
HERE = torch.device("cpu")


class Cuda:
    """Records what is asked of it, in order."""

    def __init__(self):
        self.asked, self.streams, self.num_pools = [], ["main"], 0

    def make_stream(self, _device):
        return Stream(self, "captures")

    def current_stream(self, _device):
        return Stream(self, self.streams[-1])

    @contextmanager
    def stream(self, stream):
        self.streams.append(stream.name)
        yield
        self.streams.pop()

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        graph.pool_id = pool
        self.asked.append(f"capture on {stream.name}")
        yield

    def new_pool(self):
        self.num_pools += 1
        return self.num_pools


class Stream:
    def __init__(self, cuda, name):
        self._cuda, self.name = cuda, name

    def __eq__(self, other):
        return self.name == other.name

    __hash__ = None

    def wait_stream(self, other):
        self._cuda.asked.append(f"{self.name} waits for {other.name}")

    def synchronize(self):
        self._cuda.asked.append("synchronize")


class Graph:
    def pool(self):
        return self.pool_id

    def replay(self):
        self.work()


@pytest.fixture
def cuda(monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(torch.cuda, "Stream", cuda.make_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", cuda.current_stream)
    monkeypatch.setattr(torch.cuda, "stream", cuda.stream)
    monkeypatch.setattr(torch.cuda, "graph", cuda.graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", cuda.new_pool)
    programs.graph_place.cache_clear()
    yield cuda
    programs.graph_place.cache_clear()


def double(inputs, outputs):
    torch.add(inputs["frames"] * 2, inputs["noise"], out=outputs["middle"])


def captured(device=HERE):
    """A program that doubles frames and adds noise; replaying the graph computes afresh."""
    inputs = {"frames": torch.zeros(3), "noise": torch.zeros(3)}
    outputs = {"middle": torch.zeros(3)}
    program = Captured(double, inputs, outputs, device)
    program.capture()
    program.graph.work = lambda: double(inputs, outputs)
    return program


def run(program, part, *, frames=(1.0, 2.0, 3.0)):
    outputs = {"middle": torch.full((3,), torch.nan)}
    program.run({"frames": torch.tensor(frames)}, {"noise": torch.ones(3)}, outputs, part)
    return outputs["middle"]


@pytest.fixture
def part(cuda):
    @contextmanager
    def told(what):
        cuda.asked.append(f"part {what}")
        yield

    return told


def test_items_go_in_and_results_come_out(cuda, part):
    program = captured()
    cuda.asked.clear()
    assert run(program, part).tolist() == [3.0, 5.0, 7.0]
    assert run(program, part, frames=(0.0, 0.0, 1.0)).tolist() == [1.0, 1.0, 3.0]
    assert cuda.asked == ["main waits for captures"]  # no copy elsewhere, and no waiting


def test_copies_from_and_to_other_memory_are_told(cuda, part):
    program = captured(ELSEWHERE)
    cuda.asked.clear()
    run(program, part)
    assert cuda.asked[1:] == ["part copy", "synchronize", "part copy"]


def test_the_capture_waits_for_what_made_the_buffers(cuda):
    captured()
    assert cuda.asked == ["captures waits for main", "capture on captures"]
    cuda.asked.clear()
    with cuda.stream(Stream(cuda, "other")):
        captured()
    assert cuda.asked[1:] == ["captures waits for other", "capture on captures"]


def test_only_the_call_before_the_capture_compiles(cuda):
    @contextmanager
    def compiling(device):
        assert device == HERE
        cuda.asked.append("compile")
        yield
        cuda.asked.append("compiled")

    def compute(inputs, outputs):
        cuda.asked.append(f"compute on {cuda.streams[-1]}")

    Captured(compute, {}, {}, HERE, compiling=compiling).capture()
    assert cuda.asked == [
        "captures waits for main",
        "compile",
        "compute on captures",
        "compiled",
        "capture on captures",
        "compute on main",
    ]


def test_a_stream_waits_for_what_used_the_scratch_memory_last(cuda, part):
    program = captured()
    cuda.asked.clear()
    for name in ("one", "one", "two", "one"):
        with cuda.stream(Stream(cuda, name)):
            run(program, part)
    assert cuda.asked == ["one waits for captures", "two waits for one", "one waits for two"]


def test_graphs_share_one_pool_as_long_as_one_lives(cuda):
    first, second = captured(), captured()
    assert first.graph.pool() == second.graph.pool() == 1
    del first
    third = captured()
    assert third.graph.pool() == 1
    del second, third
    assert captured().graph.pool() == 2  # the old pool's memory can go


def test_another_shape_than_prepared_is_refused(cuda, part):
    with pytest.raises(ValueError, match=r"shape \[1\], but prepared for \[3\]"):
        run(captured(), part, frames=(1.0,))


def test_several_compile_at_the_same_time_each_by_itself(cuda):
    """As Triton's mode, of which one can be active in a context."""
    active = ContextVar("active", default=False)

    @contextmanager
    def compiling(_device):
        assert not active.get(), "another one is active"
        active.set(True)
        yield
        cuda.asked.append("compiled")
        active.set(False)

    seen = []
    programs = [
        Captured(lambda _i, _o: seen.append(active.get()), {}, {}, HERE, compiling=compiling)
        for _ in range(2)
    ]
    assert "compiled" not in cuda.asked
    programs[0].capture()
    assert cuda.asked.count("compiled") == 1
    programs[1].wait()
    programs[1].wait()  # whoever drops it may not know that it has waited
    assert cuda.asked.count("compiled") == 2
    assert seen == [True, True, False], "two calls that compile, and one that is captured"


def test_a_first_call_that_fails_ends_the_compiling(cuda):
    @contextmanager
    def compiling(_device):
        try:
            yield
        finally:
            cuda.asked.append("compiled")

    def compute(_inputs, _outputs):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError) as kept:  # with all that it holds
        Captured(compute, {}, {}, HERE, compiling=compiling)
    assert cuda.asked[-1] == "compiled", kept
