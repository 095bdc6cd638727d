"""The weights that ship show motion that is right: on the demo clip, whose truth is known."""

from itertools import islice

import pytest

from runtime.config import PROJECT, load_config
from stages.eden.model import load_eden
from tools.eden_metrics import average, score
from tools.eval_interpolation import model_guess, read_video

CLIP = PROJECT / "configs/demo/clip.mp4"
SHIPPED = str(load_config("demo.yaml").model["weights"])
EVERY = 4  # of the 29 triplets that dropping every second frame makes
MARGIN = 4.0  # dB above the average of the two frames; the whole clip reaches 6.9


def gain(weights):
    """Return how many dB the model is above the average of the two frames, on some triplets."""
    triplets = islice(read_video(CLIP, None), 0, None, EVERY)
    guesses = {"model": model_guess(load_eden(weights), 0), "average": average}
    count, scores = score(triplets, guesses)
    assert count >= 7
    found = {one.name: one.psnr for one in scores}
    return found["model"] - found["average"]


@pytest.mark.slow
def test_frames_between_are_far_better_than_the_average_of_their_neighbours():
    assert gain(SHIPPED) > MARGIN


@pytest.mark.slow
def test_random_weights_do_not_pass_that():
    assert gain("random:0:small") < 0


def test_the_demo_takes_the_weights_that_ship_and_they_stay_small():
    folder = PROJECT / "stages/eden/weights"
    assert str(folder / "eden_small.safetensors") == SHIPPED
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12 * 2**20
