"""The demo clip is what its tool renders; its first picture stands for all, which take minutes."""

import sys

import av
import numpy as np
import pytest

from runtime.config import PROJECT


@pytest.mark.nightly
def test_the_clip_that_ships_is_the_one_that_is_rendered(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))  # as `python tools/make_clip.py` has it
    import make_clip

    rendered = next(make_clip.render())
    with av.open(str(PROJECT / "configs/demo/clip.mp4")) as container:
        shipped = next(container.decode(video=0)).to_ndarray(format="rgb24")
    error = ((shipped.astype(float) - rendered) ** 2).mean() / 255**2
    assert -10 * np.log10(error) > 33
    for name in ("make_clip", "clip_scenes"):
        sys.modules.pop(name)
