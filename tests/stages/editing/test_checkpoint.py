"""A folder that holds no editor is refused in one line that names what is wrong with it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from stages.base import UserError
from stages.editing import Edit, EditWhole, EncodePrompts
from stages.editing.checkpoint import open_checkpoint
from stages.editing.models import load_edit_half, load_text_half, load_whole
from stages.editing.published import PLAIN, PLUS, PRESETS
from tests.stages.editing.conftest import facts_of

BOTH = (PLAIN, PLUS)


@pytest.fixture
def folder(checkpoint, tmp_path):
    """Return a checkpoint of its own, to be broken."""
    copy = tmp_path / "editor"
    shutil.copytree(checkpoint(), copy)
    return copy


def refused(folder, stage=Edit, **keywords):
    with pytest.raises(UserError) as caught:
        stage(weights=str(folder), **{"dtype": "float32"} | keywords).load("cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    assert "no such folder; fetch one (hf download" in refused(tmp_path / "none")


def test_a_folder_without_an_index(tmp_path):
    assert "no pipeline of diffusers: it has no model_index.json" in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "", '{"_class_name": 3}', "\xff"])
def test_an_index_that_says_nothing(folder, text):
    (folder / "model_index.json").write_text(text, encoding="latin-1")
    assert "model_index.json" in refused(folder)


def test_a_pipeline_of_another_class(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    assert "a FluxPipeline, where QwenImageEditPipeline or" in refused(folder)
    assert "EditWhole takes any" in refused(folder)
    assert "set pipeline: FluxPipeline, if it edits" in refused(folder, EditWhole, pipeline=PLUS)


def test_a_component_that_is_not_there(folder):
    shutil.rmtree(folder / "vae")
    assert "it has no vae/" in refused(folder)


def test_pickled_weights_stay_unread(folder):
    (folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae/diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert "vae/diffusion_pytorch_model.bin is pickled, which can run code" in refused(folder)
    assert "is pickled" in refused(folder, EditWhole, pipeline=PLAIN)


def test_weights_that_are_missing(folder):
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    assert "transformer/ has no safetensors" in refused(folder)


def test_weights_cut_short(folder):
    file = folder / "text_encoder/model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "text_encoder/model.safetensors is cut short" in refused(folder, EncodePrompts)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 64, b"\2\0\0\0\0\0\0\0{}{}", b"\2" + b"\0" * 7 + b"[]"]
)
def test_a_file_of_something_else(folder, data):
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(data)
    assert "vae" in refused(folder)


def test_a_tensor_of_an_unknown_kind(folder):
    header = b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}'
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert "vae cannot be read" in refused(folder)


def test_a_shard_that_is_missing(folder):
    whole = folder / "vae/diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("one.safetensors"))
    places = {"a": "one.safetensors", "b": "two.safetensors"}
    index = whole.with_name(f"{whole.name}.index.json")
    index.write_text(json.dumps({"weight_map": places}))
    assert "vae/two.safetensors is missing" in refused(folder)
    places = {"a": "../../one.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    assert "vae" in refused(folder)  # what is there is one's own, and holds no VAE


def test_weights_of_another_shape(folder):
    config = folder / "transformer/config.json"
    numbers = json.loads(config.read_text())
    config.write_text(json.dumps(numbers | {"joint_attention_dim": 32}))
    assert "transformer cannot be read" in refused(folder)


def test_code_of_a_checkpoints_own(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = ["my_transformer", "MyTransformer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "transformer is code of its own" in refused(folder, EditWhole, pipeline=PLAIN)


@pytest.mark.parametrize("weights", ["random:", "random:x", "random:0:huge", "random:-1"])
def test_random_weights_that_are_none(weights):
    assert "write random:SEED" in refused(weights)


@pytest.mark.parametrize(
    ("stage", "keywords", "message"),
    [
        (Edit, {"dtype": "int8"}, "dtype 'int8' is unknown"),
        (Edit, {"steps": 0}, "steps = 0"),
        (Edit, {"area": 100}, "area = 100"),
        (EditWhole, {"pipeline": PLAIN, "call": {"prompt": "x"}}, "`prompt` is given by the stage"),
    ],
)
def test_options_out_of_range(stage, keywords, message):
    with pytest.raises(UserError, match=message):
        stage(weights="random:0", **keywords)


def test_one_step_where_the_schedule_ends_short(checkpoint):
    stage = Edit(weights=checkpoint(), dtype="float32", steps=1)
    with pytest.raises(UserError, match="write 2 or more"):
        stage.load("cpu")


@pytest.mark.parametrize(
    ("pipeline", "call", "message"),
    [
        ("QwenImagEditPipeline", {}, "did you mean QwenImageEditPipeline"),
        ("AutoencoderKL", {}, "has none of this name"),
        ("QwenImagePipeline", {}, "it edits nothing: no `image`"),
        (PLAIN, {"num_inference_step": 2}, "did you mean `num_inference_steps`"),
    ],
)
def test_a_pipeline_that_cannot_edit(checkpoint, pipeline, call, message):
    stage = EditWhole(weights=checkpoint(), pipeline=pipeline, call=call)
    with pytest.raises(UserError, match=message):
        stage.load("cpu")


def test_what_does_not_fit_is_said_with_numbers(checkpoint, monkeypatch):
    stage = Edit(weights="random:0", dtype="bfloat16")

    def load():
        raise torch.OutOfMemoryError

    monkeypatch.setattr(stage, "_load", load)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (2**33, 3 * 2**33))
    with pytest.raises(UserError, match=r"38\.3 GiB for weights, and 8\.0 GiB of 24\.0 GiB were"):
        stage.load("cpu")


def test_footprints_are_of_what_is_loaded(checkpoint):
    facts, cpu = facts_of(), torch.device("cpu")
    found = open_checkpoint(checkpoint(), BOTH)
    edit, text = (
        load_edit_half(found, cpu, torch.float32),
        load_text_half(found, cpu, torch.float32),
    )
    bytes_of = [
        sum(tensor.nbytes for model in models for tensor in model.parameters())
        for models in ((edit.vae, edit.transformer), (text.text_encoder,))
    ]
    stages = [stage(weights=checkpoint(), dtype="float32") for stage in (Edit, EncodePrompts)]
    taken = [stage.footprint(facts, "cpu") for stage in stages]
    whole = EditWhole(weights=checkpoint(), dtype="float32", pipeline=PLAIN)
    assert [one.weights_bytes for one in taken] == bytes_of
    assert whole.footprint(facts, "cpu").weights_bytes == sum(bytes_of)
    assert all(one.work_bytes > facts.max_source_bytes for one in taken)


def test_the_published_sizes_are_those_of_the_models():
    import diffusers

    for name in ("full", "tiny"):
        preset = PRESETS[name]
        with torch.device("meta"):
            models = {
                "transformer": diffusers.QwenImageTransformer2DModel(**preset.transformer),
                "vae": diffusers.AutoencoderKLQwenImage(**preset.vae),
            }
        counted = {
            part: sum(tensor.numel() for tensor in model.parameters())
            for part, model in models.items()
        }
        assert {part: preset.parameters[part] for part in counted} == counted


def test_random_weights_are_drawn_from_their_seed():
    def first_of(weights):
        pipeline = load_whole(open_checkpoint(weights, BOTH), torch.device("cpu"), torch.float32)
        models = (pipeline.transformer, pipeline.vae, pipeline.text_encoder)
        return [tensor.sum().item() for model in models for tensor in model.parameters()]

    state = torch.random.get_rng_state()
    one = first_of("random:1:tiny")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one == first_of("random:1:tiny") != first_of("random:2:tiny")


def test_asking_what_a_stage_writes_loads_no_library(checkpoint):
    code = (
        "import sys; from stages.editing import Edit, EncodePrompts;"
        "from tests.stages.editing.sizes import print_sizes; print_sizes(sys.argv[1]);"
        "print(*{'diffusers', 'transformers', 'torchvision', 'accelerate'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, checkpoint()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 ['prompt', 'negative'] ['edited'] \n"
