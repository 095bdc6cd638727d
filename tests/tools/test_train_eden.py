"""Training on a CPU, at toy size: its arithmetic is inference's, it learns, it goes on."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from stages.eden.architecture import Architecture, infer
from stages.eden.checkpoint import read_architecture, read_tensors
from stages.eden.decoder import Decoder
from stages.eden.denoiser import Denoiser
from stages.eden.encoder import Encoder
from stages.eden.model import load_eden
from tools.eden_data import Paint, Place, Renderer
from tools.eden_net import Net
from tools.eden_optim import orthogonal
from tools.eden_textures import HELD_OUT, TRAINED, Dice
from tools.train_eden import Training

PROJECT = Path(__file__).resolve().parents[2]
PREFIXES = Encoder.prefixes + Denoiser.prefixes + Decoder.prefixes
VIEW = {"batch": 2, "sizes": [{"crop": [32, 48], "frame": [48, 64]}], "rate": [4e-3, 2e-3]}
PLAN = {
    "seed": 1,
    "model": {
        "hidden": 32,
        "num_heads": 2,
        "dit_depth": 1,
        "decoder_depth": 2,
        "mlp_hidden": 64,
        "patch": 8,
        "latent": 4,
    },
    "encoder_depth": 1,
    "data": {"stock": 2, "refresh": [2, 1000]},
    "average": 0.9,
    "weight_decay": 0.01,
    "warmup": 5,
    "log_every": 15,
    "phases": [
        {"train": "tokenizer", "steps": 45, "loss": "robust", "kl": 1e-5, **VIEW},
        {"train": "velocity", "steps": 15, **VIEW},
        {"train": "sampler", "steps": 15, "loss": "psnr", **VIEW},
    ],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All three phases, the last by a second run; and what the first left behind."""
    out = tmp_path_factory.mktemp("eden")
    first = PLAN | {"phases": PLAN["phases"][:2]}
    Training(first, out, torch.device("cpu")).run(minutes=5)
    before = load_file(out / "encoder.safetensors")
    Training(PLAN, out, torch.device("cpu")).run(minutes=5)
    return out, before


def losses(out, phase):
    with (out / "loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["phase"] == phase]


@pytest.mark.slow
def test_a_short_training_lowers_the_loss(trained):
    out, _ = trained
    first, _, last = losses(out, "tokenizer")
    assert last < 0.8 * first
    assert ET.parse(out / "loss.svg").getroot().tag.endswith("svg")


@pytest.mark.slow
def test_a_second_run_goes_on_from_the_files_of_the_first(trained):
    out, before = trained
    state = json.loads((out / "state.json").read_text())
    assert (state["phase"], state["steps"]) == (3, 75)
    assert [len(losses(out, phase["train"])) for phase in PLAN["phases"]] == [3, 1, 1]
    after = load_file(out / "encoder.safetensors")  # which the last phase does not change
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.slow
def test_the_stages_take_what_was_trained(trained):
    out, _ = trained
    eden = load_eden(str(out / "eden.safetensors"))
    assert eden.architecture.num_heads == PLAN["model"]["num_heads"]
    assert eden.architecture.constants.vae_scaler not in (1.0, 0.179437)
    assert eden.architecture.constants.cos_sim_mean != 0.990539
    shown = eden.interpolate(torch.rand(2, 3, 30, 50), torch.randn(1, 8, 4))
    assert shown.shape == (1, 3, 30, 50)


def test_training_computes_what_inference_computes():
    weights, size = "random:5:tiny", (60, 90)
    eden, tensors = load_eden(weights), read_tensors(weights, PREFIXES)
    frames = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    grid = eden.grid(*size)
    noise = torch.randn(2, grid.geometry.num_latents, eden.architecture.latent)
    with torch.inference_mode():
        encoded = eden.encode(frames, grid)
        latents = torch.empty_like(noise)
        eden.denoiser.denoise(noise, encoded.difference, encoded.tokens_dit, grid, out=latents)

        net = Net(eden.architecture, *size, torch.device("cpu"))
        pairs = net.encode(tensors, frames[:-1], frames[1:])
        assert (pairs.difference - encoded.difference).abs().max() < 1e-5
        assert (net.sample(tensors, noise, pairs) - latents).abs().max() < 1e-4
        shown = net.decode(tensors, latents, pairs).clamp(0, 1)
    assert (shown - eden.interpolate(frames, noise)).abs().max() < 1e-5


def test_positions_of_a_crop_are_those_of_its_place_in_the_frame():
    architecture = Architecture(hidden=32, num_heads=2, patch=8)
    whole = Net(architecture, 96, 160, torch.device("cpu")).grid
    net = Net(architecture, 32, 48, torch.device("cpu"), frame=(96, 160))
    net.move(2, 5)
    rows, columns = slice(2, 4), slice(5, 8)
    latents = whole.latents.view(6, 10, 32)[rows, columns]
    tokens = whole.tokens.view(6, 10, 4, 32)[rows, columns]
    assert torch.equal(net.grid.latents, latents.reshape(-1, 32))
    assert torch.equal(net.grid.tokens, tokens.reshape(-1, 32))


@pytest.fixture(scope="module")
def renderer():
    dice = Dice(torch.Generator().manual_seed(3))
    return Renderer(Paint(dice, [], 16), dice, 64, 96)


def test_scenes_that_do_not_move_are_their_own_average(renderer):
    before, middle, after = renderer.render(6, distance=0.0)
    assert torch.equal(before, middle)
    assert torch.equal(after, middle)
    assert middle.std() > 0.1


def test_scenes_that_move_do_so_evenly(renderer):
    motion = renderer._motion(1, torch.ones(1, 1), torch.ones(1, 1))
    still = Place(torch.ones(1, 1, dtype=torch.complex64), torch.zeros(1, 1, dtype=torch.complex64))
    place = motion.undo(still)
    # Where the layer's origin is seen: factor * z + shift = 0.
    before, middle, after = (-place.shift / place.factor)[0].tolist()
    assert abs(after) > 1
    assert abs(middle) < 1e-6
    assert abs(before + after) < 1e-4
    turns = place.factor[0] / place.factor[0, 1]
    assert abs(turns[0] * turns[2] - 1) < 1e-5
    before, middle, after = renderer.render(6, distance=1.0)
    assert all((picture - middle).abs().mean() > 1e-3 for picture in (before, after))


def test_photographs_are_either_trained_on_or_held_out():
    trained_on = {name for names in TRAINED.values() for name in names}
    assert not trained_on & {name for names in HELD_OUT.values() for name in names}


def test_updates_of_matrices_have_singular_values_near_one():
    matrices = torch.randn(3, 24, 96, generator=torch.Generator().manual_seed(0))
    for some in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonal(some))
        assert values.min() > 0.5
        assert values.max() < 1.5


WEIGHTS = PROJECT / "stages/eden/weights"


def test_the_shipped_weights_are_small_and_say_what_they_are():
    size = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert size <= 12 * 2**20
    architecture = read_architecture(str(WEIGHTS / "eden_small.safetensors"))
    plan = yaml.safe_load((PROJECT / "tools/train_eden.yaml").read_text())
    assert {name: getattr(architecture, name) for name in plan["model"]} == plan["model"]
    card = (WEIGHTS / "README.md").read_text()
    files = [name for some in (TRAINED, HELD_OUT) for names in some.values() for name in names]
    assert [name for name in files if Path(name).name not in card] == []


def test_sixteen_bits_are_taken_and_other_shapes_refused(tmp_path):
    state = {n: t.half() for n, t in read_tensors("random:3:tiny", PREFIXES).items()}
    path = tmp_path / "half.safetensors"
    save_file(state, path, metadata={"num_heads": "2", "vae_scaler": "0.5"})
    eden = load_eden(str(path))
    assert eden.architecture.constants.vae_scaler == 0.5
    assert eden.architecture.constants.vae_shift == 0.770202
    shown = eden.interpolate(torch.rand(2, 3, 32, 32), torch.randn(1, 1, 16))
    assert shown.isfinite().all()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert infer(shapes, 2, eden.architecture.constants) == eden.architecture
