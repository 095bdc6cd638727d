"""Stages as CUDA graphs: what they write, that they never wait, and what memory they keep."""

import importlib.util
import math
import warnings
from contextlib import contextmanager

import pytest
import torch

from stages.base import Item
from stages.eden import Decode, Denoise, Encode
from stages.eden.model import load_eden
from stages.eden.networks import PLAIN
from stages.eden.noise import window_noise
from stages.eden.programs import Captured, Direct
from stages.eden.yuv import planes_to_rgb
from stages.window import WindowMeta

TINY = "random:3:tiny"
TRAINED = "stages/eden/weights/eden_small.safetensors"
KINDS = (Encode, Denoise, Decode)
HAS_TRITON = importlib.util.find_spec("triton") is not None

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or not HAS_TRITON, reason="needs a GPU and Triton"
    ),
]


def item_of(pairs, index=0):
    meta = WindowMeta(num_pairs=pairs, pts=tuple(range(pairs + 1)), cuts=(False,) * pairs)
    return Item(index=index, attempt=0, meta=meta)


def on_gpu(specs):
    """Fresh tensors on the GPU, all bytes 255, which is NaN in every floating point type."""
    tensors = {}
    for name, spec in specs.items():
        tensors[name] = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="cuda:0")
        tensors[name].view(torch.uint8).fill_(255)
    return tensors


@pytest.fixture
def ready(facts_of):
    """Make the three stages ready on the GPU; they are closed when the test ends."""
    made = []

    def make(facts, **options):
        stages = [kind(**{"weights": TINY, "dtype": "bfloat16", **options}) for kind in KINDS]
        made.extend(stages)
        for stage in stages:
            stage.load("cuda:0")
            assert stage.prepare(facts, facts.pairs_per_item) == facts.pairs_per_item
        return stages

    yield make
    for stage in made:
        stage.close()


@contextmanager
def no_waiting():
    """Let waiting for the GPU be an error, and what comes after the block as it was."""
    with warnings.catch_warnings():
        # Setting it says, once a process, that it does not see every way to wait.
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def run(stages, facts, frames, index=0):
    """Run one window on fresh tensors of the GPU; return all of them."""
    tensors = {"frames": frames.to("cuda:0")}
    for stage in stages:
        outputs = on_gpu(stage.specs(facts))
        stage.run(tensors, outputs, item_of(facts.pairs_per_item, index))
        tensors |= outputs
    return tensors


def test_a_gpu_gets_kernels_and_a_graph_and_torch_is_to_be_had(facts_of, ready):
    for stage in ready(facts_of()):
        assert stage._networks.name == "triton"
        assert isinstance(stage._program, Captured)
    for stage in ready(facts_of(), kernels="torch"):
        assert stage._networks is PLAIN
        assert isinstance(stage._program, Direct)


def test_kernels_compile_without_running_and_run_then():
    from stages.eden.fused import jit, mlp  # these need Triton

    x = torch.full((mlp.NUMBERS * 3 + 1,), -2.0, dtype=torch.float16, device="cuda:0")
    with jit.compiling(x.device):
        mlp.gelu_(x)
    assert (x == -2.0).all()
    mlp.gelu_(x)
    assert (x > -1.0).all()


@pytest.mark.parametrize("size", [(32, 32), (50, 38), (65, 107)])
@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_stages_compute_what_a_cpu_computes(size, kernels, facts_of, frames_of, ready, run_chain):
    facts = facts_of(*size, seed=3)
    frames = frames_of(facts)
    expected = run_chain(facts, frames, index=5)
    tensors = run(ready(facts, dtype="float32", kernels=kernels), facts, frames, index=5)
    for name in ("tokens_dit", "tokens_dec", "stats", "difference", "latents"):
        torch.testing.assert_close(tensors[name].cpu(), expected[name], rtol=0, atol=1e-4)
    away = (tensors["middle"].cpu().int() - expected["middle"].int()).abs()
    assert away.max() <= 1
    assert (away > 0).float().mean() < 5e-3


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_running_waits_for_nothing_and_is_the_same_again(kernels, facts_of, frames_of, ready):
    facts = facts_of(65, 107, pairs=3)
    stages, frames = ready(facts, kernels=kernels), frames_of(facts).to("cuda:0")
    first = run(stages, facts, frames)
    other = run(stages, facts, frames.flip(0))
    with no_waiting():
        second = run(stages, facts, frames)
    for name, tensor in first.items():
        assert torch.equal(tensor.view(torch.uint8), second[name].view(torch.uint8)), name
        assert not torch.equal(tensor.view(torch.uint8), other[name].view(torch.uint8)), name
        assert not (tensor.is_floating_point() and tensor.isnan().any()), name


def test_waiting_is_an_error_while_it_is_forbidden_and_only_then():
    on_gpu = torch.ones(1, device="cuda:0")
    with pytest.raises(RuntimeError, match="synchronizing"), no_waiting():
        on_gpu.item()
    assert on_gpu.item() == 1


def test_inputs_stay_as_they_were(facts_of, frames_of, ready):
    facts = facts_of(50, 38)
    stages, frames = ready(facts), frames_of(facts)
    tensors = run(stages, facts, frames)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    for stage in stages:
        stage.run(tensors, on_gpu(stage.specs(facts)), item_of(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


def test_windows_of_another_shape_than_prepared_are_refused(facts_of, frames_of, ready):
    encode = ready(facts_of(pairs=2))[0]
    facts = facts_of(pairs=1)
    with pytest.raises(ValueError, match="but prepared for"):
        run([encode], facts, frames_of(facts))


def test_streams_take_turns_with_the_scratch_memory(facts_of, frames_of, ready):
    facts = facts_of(160, 96, pairs=4)
    stages, frames = ready(facts), frames_of(facts).to("cuda:0")
    expected = run(stages, facts, frames)
    streams = [torch.cuda.Stream() for _ in range(3)]
    inputs = {**expected}
    outputs = [[on_gpu(stage.specs(facts)) for stage in stages] for _ in range(5)]
    torch.cuda.synchronize()
    for turn in outputs:
        for stage, stream, written in zip(stages, streams, turn, strict=True):
            with torch.cuda.stream(stream):
                stage.run(inputs, written, item_of(4))
    torch.cuda.synchronize()
    for turn in outputs:
        for written in turn:
            assert all(torch.equal(t, expected[name]) for name, t in written.items())


def test_memory_of_a_job_is_given_back_by_the_next_and_by_close(facts_of, ready):
    large, small = facts_of(480, 720, pairs=4), facts_of(64, 64, pairs=1)
    for stage in ready(large, weights=TRAINED):  # what libraries take once and keep
        stage.close()
    before = torch.cuda.memory_allocated()
    stages = ready(small, weights=TRAINED)
    held = [torch.cuda.memory_allocated()]
    for facts in (large, small, large, small):
        for stage in stages:
            stage.prepare(facts, facts.pairs_per_item)
        held.append(torch.cuda.memory_allocated())
    slack = 2**23  # the allocator gives a buffer up to 1 MiB more than it asks for
    assert max(held[::2]) - min(held[::2]) <= slack
    assert abs(held[1] - held[3]) <= slack
    assert held[1] > held[0] + 2 * slack
    for stage in stages:
        stage.close()
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.parametrize("weights", ["random:0", TRAINED])
def test_half_precision_is_50_db_from_single(weights, facts_of, frames_of):
    facts = facts_of(480, 720, pairs=2)
    frames = planes_to_rgb(frames_of(facts).to("cuda:0"), facts)
    exact = load_eden(weights, device="cuda:0")
    count, channels = exact.grid(480, 720).geometry.num_latents, exact.architecture.latent
    noise = window_noise(0, 0, (2, count, channels)).to("cuda:0")
    expected = exact.interpolate(frames, noise)
    half = load_eden(weights, device="cuda:0", dtype=torch.bfloat16, kernels="triton")
    away = (half.interpolate(frames, noise) - expected).square().flatten(1).mean(1).max()
    assert 10 * math.log10(1 / away) >= 50
