import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.video.join import plan_times


@st.composite
def segments(draw):
    """Increasing times of a few segments, each shuffled as B-frames are, by two places at most."""
    stored, now = [], 0
    for size in draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)):
        gaps = draw(st.lists(st.integers(1, 1000), min_size=size, max_size=size))
        times = now + np.cumsum(gaps)
        now = int(times[-1])
        keys = np.arange(size) + np.array(
            draw(st.lists(st.sampled_from([0, 0, 1.5, 2.5]), min_size=size, max_size=size))
        )
        stored.append(times[np.argsort(keys, kind="stable")].astype(np.int64))
    return stored


@given(segments(), st.integers(1, 1000), st.integers(0, 2000))
def test_frames_are_decoded_in_order_never_late_and_for_the_length_of_the_video(stored, last, gap):
    shown = max(int(pts.max()) for pts in stored)
    times = plan_times(stored, last, shown + gap)
    last = max(last, gap)
    assert np.array_equal(times.pts, np.concatenate(stored))
    assert np.all(np.diff(times.dts) > 0)
    assert np.all(times.dts <= times.pts)
    assert times.dts[-1] - times.dts[0] + times.durations[-1] == np.ptp(times.pts) + last
    assert (times.pts + times.durations).max() == times.pts.max() + last
