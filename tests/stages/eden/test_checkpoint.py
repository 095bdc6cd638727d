"""Weights from files and seeds, and what is refused."""

import json
import os
import pickle
import shutil
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.base import UserError
from stages.eden import Decode, Denoise, Encode, checkpoint
from stages.eden.architecture import PRESETS, Architecture
from stages.eden.checkpoint import read_architecture, read_tensors
from stages.eden.model import load_eden

TINY = "random:3:tiny"


def tiny_state():
    return read_tensors(TINY, every_prefix())


def every_prefix():
    return Encode.prefixes + Denoise.prefixes + Decode.prefixes


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint in the published form; return its path."""

    def write(state, name="eden.pt", **sidecar):
        path = tmp_path / name
        torch.save({"eden": state}, path)
        if sidecar:
            path.with_suffix(".json").write_text(json.dumps(sidecar))
        return str(path)

    return write


def test_the_published_model_has_its_tensors_and_parameters():
    shapes = Architecture().shapes()
    assert len(shapes) == 254
    assert round(sum(torch.Size(shape).numel() for shape in shapes.values()) / 1e6, 1) == 157.9


def test_stages_together_read_every_tensor_and_one_small_norm_twice():
    names = [set(read_tensors(TINY, kind.prefixes)) for kind in (Encode, Denoise, Decode)]
    assert set.union(*names) == set(PRESETS["tiny"].shapes())
    counts = Counter(name for part in names for name in part)
    twice = {name for name, count in counts.items() if count > 1}
    assert twice == {"norm_cond_dec.weight", "norm_cond_dec.bias"}


def test_pt_and_safetensors_give_the_same(save, tmp_path, golden_dir):
    source = golden_dir / "eden_tiny_random.pt"
    model = read_architecture(str(source))
    state = torch.load(source, weights_only=True)["eden"]
    save_file(state, tmp_path / "eden.safetensors", metadata=model.metadata())
    other = str(tmp_path / "eden.safetensors")
    assert read_architecture(other) == model
    assert model.num_heads == 4
    ours, theirs = (read_tensors(path, every_prefix()) for path in (str(source), other))
    assert ours.keys() == theirs.keys() == state.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in state)


def test_encode_reads_its_own_tensors_only(tmp_path, monkeypatch):
    save_file(tiny_state(), tmp_path / "eden.safetensors")
    read = []

    class Spy:
        def __init__(self, *args, **kwargs):
            self._file = safe_open(*args, **kwargs)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def get_tensor(self, name):
            read.append(name)
            return self._file.get_tensor(name)

    safe_open = checkpoint.safe_open
    monkeypatch.setattr(checkpoint, "safe_open", Spy)
    stage = Encode(weights=str(tmp_path / "eden.safetensors"))
    stage.load("cpu")
    assert len(read) == 8
    assert all("cond_d" in name for name in read)


def test_loaded_weights_do_not_depend_on_the_file_any_more(save):
    path = save(tiny_state())
    eden = load_eden(path)
    frames, noise = torch.rand(2, 3, 32, 32), torch.randn(1, 1, 16)
    before = eden.interpolate(frames, noise)
    with open(path, "r+b") as file:
        file.write(bytes(os.path.getsize(path)))
    assert torch.equal(eden.interpolate(frames, noise), before)


def test_random_weights_are_keyed_by_seed_and_name():
    every = read_tensors(TINY, every_prefix())
    for kind in (Encode, Denoise, Decode):
        for name, tensor in read_tensors(TINY, kind.prefixes).items():
            assert torch.equal(tensor, every[name])
    other = read_tensors("random:4:tiny", every_prefix())
    assert all(not torch.equal(every[name], other[name]) for name in every)


def test_random_weights_give_frames_neither_flat_nor_saturated():
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, 9, 16, generator=generator)
    frames = torch.nn.functional.interpolate(frames, (64, 96), mode="bicubic").clamp(0, 1)
    noise = torch.randn(1, 6, 16, generator=generator)
    for weights in ("random:0:tiny", "random:1:small"):
        result = load_eden(weights).interpolate(frames, noise)
        assert 0.05 < result.std() < 0.3
        assert ((result <= 0) | (result >= 1)).float().mean() < 0.05


def test_full_is_the_preset_of_a_bare_seed():
    assert read_architecture("random:0") == read_architecture("random:0:full") == Architecture()


def test_heads_come_from_the_sidecar_or_are_one_per_64_channels(save):
    state = tiny_state()
    assert read_architecture(save(state)).num_heads == 1
    beside = save(state, model_args={"num_heads": 2}, vae_shift=0.5)
    model = read_architecture(beside)
    assert (model.num_heads, model.constants.vae_shift) == (2, 0.5)
    assert model.constants.vae_scaler == 0.179437


def test_safetensors_metadata_wins_over_the_sidecar(tmp_path):
    save_file(tiny_state(), tmp_path / "x.safetensors", metadata={"num_heads": "4"})
    (tmp_path / "x.json").write_text('{"num_heads": 8, "cos_sim_mean": 0.5}')
    model = read_architecture(str(tmp_path / "x.safetensors"))
    assert (model.num_heads, model.constants.cos_sim_mean) == (4, 0.5)


def refusal(weights):
    with pytest.raises(UserError) as caught:
        read_architecture(str(weights))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"weights {weights}: ")
    return message.removeprefix(f"weights {weights}: ")


def test_a_missing_file_says_where_to_get_it(tmp_path):
    message = refusal(tmp_path / "eden.pt")
    assert message.startswith("no such file; fetch eden.pt from the model repo zhZ524/EDEN")
    assert "random:0" in message


@pytest.mark.parametrize(
    "weights", ["random:", "random:x", "random:0:huge", "random:-1", "random:1:"]
)
def test_a_misspelt_seed_says_how_to_spell_it(weights):
    message = refusal(weights)
    assert message == "write random:SEED or random:SEED:PRESET, PRESET one of full, small, tiny"


@pytest.mark.parametrize("name", ["eden.pt", "eden.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04" + bytes(99)])
def test_what_is_no_checkpoint_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith("not a ")


def test_a_checkpoint_cut_short_is_refused(save, tmp_path):
    path = tmp_path / "eden.pt"
    save(tiny_state())
    path.write_bytes(path.read_bytes()[:50_000])
    assert refusal(path) == "not a PyTorch checkpoint, or only a part of one"
    save_file(tiny_state(), tmp_path / "eden.safetensors")
    path = tmp_path / "eden.safetensors"
    path.write_bytes(path.read_bytes()[:50_000])
    assert refusal(path).startswith("not a safetensors file")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the code in the checkpoint ran",)


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(save, tmp_path):
    path = save({**tiny_state(), "proj_in.bias": Bomb()})
    assert refusal(path) == "carries code or objects beside tensors; refused unread"
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"eden": Bomb()}))
    assert refusal(tmp_path / "bare.pt").startswith("not a PyTorch checkpoint")


@pytest.mark.parametrize("content", [[1, 2], {}, {"eden": 3}, {"model": {}}])
def test_a_checkpoint_without_eden_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    assert refusal(tmp_path / "other.pt") == (
        'not an EDEN checkpoint: it has no state dict called "eden"'
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proj_in.weight": None}, "tensor proj_in.weight is missing"),
        ({"dit_blocks.1.mlp.fc2.bias": None}, "tensor dit_blocks.1.mlp.fc2.bias is missing"),
        (
            {"proj_out.weight": torch.zeros(32, 31)},
            "tensor proj_out.weight has shape [32, 31], the others ask for [32, 32]",
        ),
        ({"proj_in.weight": torch.zeros(5)}, "tensor proj_in.weight has shape [5]"),
        ({"proj_in.weight": torch.zeros(0, 16)}, "tensor proj_in.weight has shape [0, 16]"),
        (
            {"dit_blocks.0.self_attn.qkv.bias": torch.zeros(96)},
            "unknown tensor dit_blocks.0.self_attn.qkv.bias (1 such)",
        ),
        ({"dit_blocks.99999999999.x": torch.zeros(1)}, "tensor dit_blocks.2.norm"),
        ({"norm_out.bias": torch.zeros(32, dtype=torch.int64)}, "tensor norm_out.bias holds no"),
    ],
)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_another_model_is_refused_with_the_tensor_that_tells(
    changes, message, kind, save, tmp_path
):
    state = {name: t for name, t in {**tiny_state(), **changes}.items() if t is not None}
    path = tmp_path / f"eden.{kind}"
    save(state) if kind == "pt" else save_file(state, path)
    assert refusal(path).startswith(f"not an EDEN model: {message}")


def test_what_is_no_tensor_is_refused(save):
    path = save({**tiny_state(), "norm_out.bias": "zeros"})
    assert refusal(path) == "not an EDEN model: norm_out.bias is a str, not a tensor"
    path = save({**tiny_state(), "norm_out.bias": torch.zeros(32).to_sparse()})
    assert refusal(path).startswith("not an EDEN model: tensor norm_out.bias holds no")


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ("{", "eden.json beside it is no JSON"),
        ("[]", "eden.json beside it is no object with model_args"),
        ('{"num_heads": "many"}', "num_heads = 'many' is no number"),
        ('{"num_heads": 5}', "num_heads = 5 does not divide the hidden size 32"),
        ('{"num_heads": 1e999}', "num_heads = inf is no finite number"),
        ('{"num_heads": 1.5}', "num_heads = 1.5 is no whole number"),
        ('{"vae_scaler": 0}', "cos_sim_std and vae_scaler divide: neither may be 0"),
        ('{"num_heads": 0}', "num_heads = 0 does not divide the hidden size 32"),
    ],
)
def test_a_bad_sidecar_is_refused(sidecar, message, save, tmp_path):
    path = save(tiny_state())
    (tmp_path / "eden.json").write_text(sidecar)
    assert refusal(path).startswith(message)


def test_stages_refuse_at_load_as_at_specs(facts_of, tmp_path):
    stage = Denoise(weights=str(tmp_path / "eden.pt"))
    with pytest.raises(UserError, match="no such file"):
        stage.specs(facts_of())
    with pytest.raises(UserError, match="no such file"):
        stage.load("cpu")
    stage.close()


def test_the_golden_checkpoint_loads_from_any_folder(golden_dir, tmp_path):
    for suffix in (".pt", ".json"):
        shutil.copy(golden_dir / f"eden_odd_batch{suffix}", tmp_path / f"moved{suffix}")
    model = read_architecture(str(tmp_path / "moved.pt"))
    assert (model.hidden, model.num_heads, model.dit_depth, model.decoder_depth) == (96, 6, 3, 1)
    assert load_file(golden_dir / "eden_odd_batch_io.safetensors")["noise"].shape == (2, 12, 16)
