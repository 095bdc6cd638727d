"""The measures against numbers known beforehand, and the tool on folders and videos."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from stages.base import UserError
from stages.eden.model import load_eden
from tools import eval_interpolation
from tools.eden_command import start
from tools.eden_metrics import average, nearest, psnr, score, ssim, table
from tools.eval_interpolation import model_guess, read_triplets, read_video, render_triplets

PROJECT = Path(__file__).resolve().parents[2]


def flat(level, height=16, width=24):
    return torch.full((1, 3, height, width), level)


def test_psnr_of_a_known_error():
    assert float(psnr(flat(0.5), flat(0.6))) == pytest.approx(20.0, abs=1e-4)
    assert float(psnr(flat(0.5), flat(0.5))) == 100.0


def test_ssim_of_flat_pictures_is_that_of_their_means():
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(flat(0.2), flat(0.6))) == pytest.approx(expected, abs=1e-5)


def test_ssim_falls_with_noise_and_is_one_for_equal_pictures():
    generator = torch.Generator().manual_seed(0)
    picture, noise = torch.rand(2, 1, 3, 32, 32, generator=generator)
    levels = [float(ssim(picture, picture + much * noise)) for much in (0.0, 0.1, 0.5)]
    assert levels[0] == pytest.approx(1.0)
    assert levels == sorted(levels, reverse=True)
    assert levels[2] < 0.85


def test_scores_are_means_over_triplets_rounded_to_8_bits():
    triplets = [(flat(0.0), flat(0.2), flat(0.4)), (flat(0.0), flat(0.2), flat(0.0))]
    count, (mean, before) = score(triplets, {"average": average, "nearest": nearest})
    off = -20 * math.log10(0.2)
    assert count == 2
    assert mean.psnr == pytest.approx((100 + off) / 2, abs=1e-3)
    assert before.psnr == pytest.approx(off, abs=1e-3)
    assert "+0.00 dB" in table("some", count, [mean, before])


def save_picture(path, pixels):
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def run(*arguments):
    command = [sys.executable, PROJECT / "tools/eval_interpolation.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_folders_of_triplets_are_found_and_judged(tmp_path):
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, :, None], (32, 48, 3))
    for name, levels in {"a": (0, 100, 200), "b/c": (50, 60, 90)}.items():
        (tmp_path / name).mkdir(parents=True)
        for i, level in enumerate(levels):
            save_picture(tmp_path / name / f"frame_{i}.png", ramp + np.uint8(level))
    done = run("triplets", tmp_path, "--weights", "random:0:tiny")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()[1:]}
    off = -20 * math.log10(10 / 255)
    assert "2 triplets" in done.stdout
    assert float(rows["average"][1]) == pytest.approx((100 + off) / 2, abs=0.01)
    assert float(rows["model"][1]) < 40


@pytest.mark.slow
def test_weights_that_are_not_there_are_said_in_one_line(tmp_path):
    done = run("triplets", tmp_path, "--weights", "no.pt")
    assert done.returncode == 1
    assert done.stderr.startswith("error: weights no.pt: no such file")
    assert "Traceback" not in done.stderr


def test_a_triplet_without_its_last_frame_is_refused(tmp_path):
    for i in (0, 1):
        save_picture(tmp_path / f"frame_{i}.png", np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(UserError, match=r"frame_2\.png: no such file"):
        list(read_triplets(tmp_path))


@pytest.mark.parametrize("data", [b"no picture", b""])
def test_a_damaged_picture_is_said(tmp_path, data):
    for i in range(3):
        (tmp_path / f"frame_{i}.jpg").write_bytes(data)
    with pytest.raises(UserError, match=r"frame_0\.jpg: not a picture, or damaged"):
        list(read_triplets(tmp_path))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([(32, 48), (32, 48), (48, 32)], "different sizes, 48x32, 48x32, 32x48"),
        ([(31, 48)] * 3, "48x31 is too small"),
    ],
)
def test_pictures_of_sizes_that_cannot_be_compared_are_said(tmp_path, sizes, said):
    for i, size in enumerate(sizes):
        save_picture(tmp_path / f"frame_{i}.png", np.zeros((*size, 3), np.uint8))
    with pytest.raises(UserError, match=said):
        list(read_triplets(tmp_path))


def save_video(path, levels, height=32, width=48):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "0", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for level in levels:
            picture = np.full((height, width, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def levels_of(triplets):
    return [[round(float(p.mean()) * 255) for p in three] for three in triplets]


def test_the_truth_of_a_video_lies_between_all_its_frames(tmp_path):
    clip = save_video(tmp_path / "clip.mp4", (20, 60, 120))
    truth = save_video(tmp_path / "truth.mp4", (40, 90))
    expected = [[20, 40, 60], [60, 90, 120]]
    assert levels_of(read_video(clip, truth)) == [pytest.approx(some, abs=2) for some in expected]


@pytest.mark.parametrize(
    ("levels", "size", "said"),
    [
        ((40,), {}, "has 1 frames, .* has 3: .* every two, 2"),
        ((40, 90, 100), {}, "has 3 frames, .* has 3: .* every two, 2"),
        ((40, 90), {"height": 64}, "different sizes, 48x32, 48x64, 48x32"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(tmp_path, levels, size, said):
    clip = save_video(tmp_path / "clip.mp4", (20, 60, 120))
    truth = save_video(tmp_path / "truth.mp4", levels, **size)
    with pytest.raises(UserError, match=said):
        list(read_video(clip, truth))


def test_a_video_is_read_as_it_is_asked_for(tmp_path, monkeypatch):
    clip = save_video(tmp_path / "clip.mp4", range(20, 60))
    made, real = [], av.VideoFrame.to_ndarray

    def counted(frame, **options):
        made.append(frame)
        return real(frame, **options)

    frames = eval_interpolation._frames(clip)
    wrapped = (SimpleNamespace(to_ndarray=partial(counted, frame)) for frame in frames)
    monkeypatch.setattr(eval_interpolation, "_frames", lambda path: wrapped)
    triplets = read_video(clip, None)
    next(triplets)
    assert len(made) == 3
    next(triplets)
    assert len(made) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["video", "FOLDER/none.mp4"], "not a video, or damaged"),
        (["video", "FOLDER/none.mp4", "--truth", "FOLDER"], "is a directory"),
        (["rendered", "--device", "nonsense"], "'nonsense' is no device"),
        (["rendered", "--height", "31"], "31 is not in the range"),
        (["photographs", "--width", "31"], "31 is not in the range"),
        (["photographs", "--count", "0"], "0 is not in the range"),
        ([], "Missing command"),
    ],
)
def test_mistakes_are_said_in_one_line(tmp_path, monkeypatch, arguments, said):
    (tmp_path / "none.mp4").write_text("no video")
    named = [argument.replace("FOLDER", str(tmp_path)) for argument in arguments]
    if "none.mp4" in " ".join(named):
        named += ["--weights", "random:0:tiny"]
    monkeypatch.setattr(sys, "argv", ["eval", *named])
    with pytest.raises(SystemExit) as ended:
        start(eval_interpolation.main)
    assert ended.value.code.startswith("error: ")
    assert said in ended.value.code
    assert "\n" not in ended.value.code


def test_the_weights_that_ship_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert eval_interpolation.WEIGHTS.is_file()
    gone = tmp_path / "gone.safetensors"
    monkeypatch.setattr(eval_interpolation, "WEIGHTS", gone)
    with pytest.raises(UserError, match="part of the project, is missing") as said:
        eval_interpolation.evaluate("none", iter(()), str(gone), "cpu", 0)
    assert "fetch" not in str(said.value)


def test_a_video_loses_every_second_frame(tmp_path):
    path = save_video(tmp_path / "clip.mp4", (16, 40, 60, 90, 120, 150))
    expected = [[16, 40, 60], [60, 90, 120]]
    assert levels_of(read_video(path, None)) == [pytest.approx(some, abs=2) for some in expected]


@pytest.mark.nightly
def test_the_shipped_weights_beat_the_average_where_random_ones_do_not():
    triplets = list(render_triplets(3, 256, 448, "cpu"))
    guesses = {"average": average}
    for name, weights in (
        ("shipped", str(PROJECT / "stages/eden/weights/eden_small.safetensors")),
        ("random", "random:0:tiny"),
    ):
        guesses[name] = model_guess(load_eden(weights), 0)
    _, (mean, shipped, random) = score(triplets, guesses)
    assert shipped.psnr > mean.psnr + 1.5
    assert random.psnr < mean.psnr
