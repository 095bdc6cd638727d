"""Whatever is in a file of weights: a model whose tensors are all there, or refused in a line."""

import pytest

from stages.base import UserError
from stages.eden.checkpoint import read_architecture, read_tensors
from tests.hostile import cases
from tests.hostile.corpus_files import CORPUS

KEPT = {
    "claims_gigabytes.pt": r"its tensors claim \d{10,} bytes, more than the file",
    "lies_nowhere.pt": "tensor .* holds no floating point numbers",
    "runs_code.pt": "carries code or objects beside tensors; refused unread",
    "unpacks_to_more.pt": "not a PyTorch checkpoint: an archive with packed records",
}


@pytest.mark.slow
@cases.seeds(short=200)
def test_every_checkpoint_is_a_model_or_refused(tmp_path, first, number):
    assert cases.defects_of("checkpoints", tmp_path, first, number) == []


@pytest.mark.parametrize("name", KEPT)
def test_what_once_was_too_much_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where its code would make the canary
    with pytest.raises(UserError, match=KEPT[name]):
        read_architecture(str(CORPUS / "checkpoints" / name))
    assert not (tmp_path / "canary").exists()


@pytest.fixture
def tiny(tmp_path):
    """Write a tiny model; return a function that gives it another file beside it."""
    import torch

    from stages.eden.architecture import PRESETS

    shapes = PRESETS["tiny"].shapes()
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    path = tmp_path / "eden.pt"

    def write(sidecar=None, **changes):
        torch.save({"eden": state | changes}, path)
        if sidecar is not None:
            path.with_suffix(".json").write_text(sidecar)
        return str(path)

    return write


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tiny, number):
    import torch

    path = tiny(**{"norm_out.bias": torch.full((32,), number)})
    with pytest.raises(UserError, match=r"tensor norm_out\.bias has numbers that are not finite"):
        read_tensors(path, ("norm_out",))


@pytest.mark.parametrize(
    ("sidecar", "why"),
    [("[" * 100_000, "is no JSON"), ('{"num_heads": 1' + "0" * 400 + "}", "is no number")],
)
def test_a_file_beside_it_that_is_too_deep_or_too_large_is_refused(tiny, sidecar, why):
    with pytest.raises(UserError, match=why):
        read_architecture(tiny(sidecar))


def test_a_tensor_of_two_lines_is_named_in_one(tiny):
    import torch

    with pytest.raises(UserError, match=r"unknown tensor a\\nb") as caught:
        read_architecture(tiny(**{"a\nb": torch.zeros(1)}))
    assert "\n" not in str(caught.value)
