"""What is said of a checkpoint before a tensor is read, and of folders that are none."""

import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.base import UserError
from stages.judging import Score
from stages.judging.checkpoint import read_checkpoint
from stages.judging.presets import PRESETS
from tests.stages.judging.groups import Group, member

FACTS = Group([member(0)], rows=8).facts


@pytest.fixture
def folder(tiny_judge, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny_judge, tmp_path / "copy")


def footprint(model, dtype="float32"):
    return Score(weights=str(model), protocol="origin", dtype=dtype).footprint(FACTS, "cuda:0")


def test_the_headers_say_how_much_memory_the_weights_take(tiny_judge, tiny_moe_judge):
    weights = load_file(tiny_judge / "model.safetensors")
    numbers = sum(tensor.numel() for tensor in weights.values())
    assert footprint(tiny_judge).weights_bytes == 4 * numbers
    assert footprint(tiny_judge, "bfloat16").weights_bytes == 2 * numbers
    assert read_checkpoint(str(tiny_judge)).num_parameters == PRESETS["tiny"].parameters
    assert read_checkpoint(str(tiny_moe_judge)).num_parameters == PRESETS["tiny-moe"].parameters


def test_a_checkpoint_in_several_files_counts_all_of_them(folder):
    weights = load_file(folder / "model.safetensors")
    halves = list(weights)[: len(weights) // 2], list(weights)[len(weights) // 2 :]
    names = {}
    for number, half in enumerate(halves):
        file = f"model-{number}.safetensors"
        save_file({name: weights[name] for name in half}, folder / file, {"format": "pt"})
        names |= dict.fromkeys(half, file)
    whole, index = footprint(folder), {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert footprint(folder) == whole
    judge = Score(weights=str(folder), protocol="origin", dtype="float32")
    judge.load("cpu")
    judge.close()
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file model-1\.safetensors; the download is not whole"):
        footprint(folder)


@pytest.mark.parametrize("preset", ["8b", "30b-a3b"])
def test_the_random_judges_have_the_published_numbers_of_parameters(preset):
    from stages.judging.random_model import config_of, model_of

    with torch.device("meta"):
        model = model_of(config_of(PRESETS[preset]))
    assert sum(values.numel() for values in model.parameters()) == PRESETS[preset].parameters


def test_a_full_size_judge_is_known_without_a_file():
    took = footprint("random:0", "bfloat16")
    assert took.weights_bytes == 2 * 8_767_123_696
    assert 2**28 < took.work_bytes < 2**33


def loading(model):
    judge = Score(weights=str(model), protocol="origin", dtype="float32")
    try:
        judge.load("cpu")
    finally:
        judge.close()


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        ("/no/such/folder", "no such folder; get one with: hf download Qwen/Qwen3-VL-8B-Instruct"),
        ("Qwen/Qwen3-VL-8B-Instruct", "no such folder; get one with"),
        ("random:x", "write random:SEED"),
        ("random:0:huge", "PRESET one of 8b, 30b-a3b"),
    ],
)
def test_a_model_that_is_none_is_a_users_mistake(model, wrong):
    with pytest.raises(UserError, match=wrong):
        loading(model)


def other_model(folder):
    change_json(folder / "config.json", model_type="qwen2_5_vl")


def no_config(folder):
    (folder / "config.json").unlink()


def config_of_nothing(folder):
    (folder / "config.json").write_text('["no", "object"]')


def half_a_config(folder):
    change_json(folder / "config.json", text_config={"hidden_size": "many"})


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder):
    (folder / "tokenizer_config.json").unlink()


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_safetensors(folder):
    (folder / "model.safetensors").write_bytes(b"not a header of anything")


def header_of_nothing(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b'{"a"')


def a_tensor_missing(folder):
    rewrite(folder, lambda weights: weights.pop("lm_head.weight"))


def a_tensor_of_another_shape(folder):
    rewrite(folder, lambda weights: weights.update({"lm_head.weight": torch.zeros(3, 64)}))


def not_finite(folder):
    rewrite(folder, lambda weights: weights["lm_head.weight"].fill_(float("nan")))


def tokenizer_of_nothing(folder):
    (folder / "tokenizer.json").write_text("{}")


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (other_model, "its model_type is 'qwen2_5_vl', not one of qwen3_vl, qwen3_vl_moe"),
        (no_config, "no config.json in it"),
        (config_of_nothing, "config.json is no JSON object"),
        (half_a_config, "its config.json has no"),
        (pickled, "its weights are pickled"),
        (no_weights, r"no file model\.safetensors; the download is not whole"),
        (no_tokenizer, "no tokenizer_config.json in it"),
        (cut_short, "model.safetensors is cut short"),
        (no_safetensors, "is no safetensors file"),
        (header_of_nothing, "has no header of safetensors"),
        (a_tensor_missing, "missing keys: lm_head.weight"),
        (a_tensor_of_another_shape, r"mismatched keys: .*lm_head\.weight"),
        (not_finite, "tensor lm_head.weight has numbers that are not finite"),
        (tokenizer_of_nothing, "weights .*copy: "),
    ],
)
def test_a_damaged_checkpoint_is_a_users_mistake(folder, damage, wrong):
    damage(folder)
    with pytest.raises(UserError, match=wrong):
        loading(folder)
