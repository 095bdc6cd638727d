import subprocess
import sys

import av
import numpy as np

from tests.stages.video.clips import write_clip


def test_a_row_has_the_frame_the_computed_one_the_true_one_and_the_next(project, tmp_path):
    doubled = write_clip(tmp_path / "doubled.mkv", 5, size=(64, 32), codec="ffv1")
    truth = write_clip(tmp_path / "truth.mkv", 2, size=(64, 32), codec="ffv1")
    arguments = ["--truth", truth, "--pair", "1", "--pair", "0", "--width", 4 * 64 + 3 * 4]
    command = [project / "tools/make_picture.py", doubled, *arguments, "--output", "out.png"]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "out.png")) as container:
        (picture,) = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert picture.shape == (2 * 32 + 4, 4 * 64 + 3 * 4, 3)
    frames, true = ([f.to_ndarray(format="rgb24") for f in _decode(p)] for p in (doubled, truth))
    for row, pair in enumerate((1, 0)):
        shown = [frames[2 * pair], frames[2 * pair + 1], true[pair], frames[2 * pair + 2]]
        for column, expected in enumerate(shown):
            top, left = row * 36, column * 68
            part = picture[top : top + 32, left : left + 64].astype(int)
            assert np.abs(part - expected).max() <= 2


def _decode(path):
    with av.open(str(path)) as container:
        yield from container.decode(video=0)
