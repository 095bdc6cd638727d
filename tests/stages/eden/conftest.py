"""What the tests of EDEN's stages share: facts, frames, memory as a worker gives it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.base import Item, Job
from stages.eden import Decode, Denoise, Encode
from stages.window import VideoFacts, WindowMeta

TINY = "random:3:tiny"


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny models on two threads of a busy machine mostly wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden_dir():
    return Path(__file__).parents[2] / "data" / "eden_golden"


@pytest.fixture
def facts_of():
    def make(height=32, width=32, *, pairs=2, seed=0, **changes):
        odd = height % 2 or width % 2
        values = {
            "pixel_format": "yuv444p" if odd else "yuv420p",
            "color_matrix": "bt709",
            "color_range": "limited",
        }
        return VideoFacts(
            job=Job(input="", output="", work_dir="", seed=seed),
            width=width,
            height=height,
            num_frames=100,
            pairs_per_item=pairs,
            **{**values, **changes},
        )

    return make


@pytest.fixture
def frames_of():
    """Smooth random frames [K + 1, frame_bytes] of a job, as planar YUV."""

    def make(facts):
        generator = torch.Generator().manual_seed(7)

        def planes(count, rows, columns):
            coarse = torch.rand(facts.pairs_per_item + 1, count, 4, 5, generator=generator)
            fine = torch.nn.functional.interpolate(coarse, (rows, columns), mode="bilinear")
            return fine.mul(200).add(30).flatten(1)

        luma = planes(1, facts.height, facts.width)
        chroma = planes(2, *facts.chroma_shape).sub(128).mul(0.3).add(128)
        return torch.cat([luma, chroma], 1).to(torch.uint8)

    return make


@pytest.fixture
def slot():
    """Tensors in one numpy buffer, poisoned, as a slot of host memory gives them."""

    def make(specs):
        buffer = np.full(sum(spec.nbytes + 64 for spec in specs.values()), 0xFF, np.uint8)
        views, start = {}, 0
        for name, spec in specs.items():
            raw = torch.from_numpy(buffer[start : start + spec.nbytes])
            views[name] = raw.view(getattr(torch, spec.dtype)).view(spec.shape)
            start += -(-spec.nbytes // 64) * 64
        return views

    return make


@pytest.fixture
def run_chain(slot):
    """Run the three stages on one window; return all its tensors by name."""

    def run(facts, frames, *, weights=TINY, index=0, dtype="float32", device="cpu"):
        pairs = facts.pairs_per_item
        meta = WindowMeta(num_pairs=pairs, pts=tuple(range(pairs + 1)), cuts=(False,) * pairs)
        tensors = {"frames": frames}
        for kind in (Encode, Denoise, Decode):
            stage = kind(weights=weights, dtype=dtype)
            outputs = slot(stage.specs(facts))
            stage.load(device)
            assert stage.prepare(facts, pairs) == pairs
            assert stage.run(tensors, outputs, Item(index=index, attempt=0, meta=meta)) == meta
            stage.close()
            tensors |= outputs
        return tensors

    return run


@pytest.fixture
def digest():
    def of(tensors):
        raw = {name: tensor.contiguous().view(torch.uint8) for name, tensor in tensors.items()}
        return {n: hashlib.sha256(r.numpy().tobytes()).hexdigest() for n, r in raw.items()}

    return of
